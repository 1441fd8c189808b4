// Regular expressions for tests, behind plain functions: <regex> takes seconds to compile wherever it is
// used.
#pragma once

#include <string>
#include <vector>

namespace graingrad::apps::test {

/// One match: the text of all of it, then of each group; "" for a group that took no part.
using Match = std::vector<std::string>;

/// The matches of `pattern` (ECMAScript) in `text`, one behind the other. Throws std::regex_error for a
/// pattern that is none.
std::vector<Match> matches(const std::string& text, const std::string& pattern);

}  // namespace graingrad::apps::test
