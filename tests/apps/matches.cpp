#include "tests/apps/matches.h"

#include <regex>

namespace graingrad::apps::test {

std::vector<Match> matches(const std::string& text, const std::string& pattern) {
  const std::regex form(pattern);
  std::vector<Match> found;
  for (std::sregex_iterator it(text.begin(), text.end(), form), end; it != end; ++it) {
    Match& match = found.emplace_back();
    for (const auto& group : *it) match.push_back(group.str());
  }
  return found;
}

}  // namespace graingrad::apps::test
