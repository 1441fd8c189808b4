// Small helpers over text: joining, and the known word nearest to a misspelt one.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graingrad::apps {

/// The items with `separator` between them.
std::string join(std::span<const std::string> items, std::string_view separator);

/// The parts of `text` between separators; empty ones are left out.
std::vector<std::string> split(std::string_view text, char separator);

/// Levenshtein distance: the fewest insertions, deletions and replacements of one character that turn `a`
/// into `b`.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The word of `known` that `word` was probably meant to be, or "" where none is near: the smallest edit
/// distance, at most a third of the word's length (at least 2); else the only known word that begins with
/// `word`.
std::string nearest(std::string_view word, std::span<const std::string> known);

}  // namespace graingrad::apps
