// Whether a text is well-formed XML, as far as our pictures use it: one root, balanced tags, quoted
// attributes that are not repeated, and no character that must be escaped.
#pragma once

#include <cctype>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace graingrad::apps::test {

/// "" where `text` is well-formed, else what is wrong, with the place.
inline std::string xml_fault(std::string_view text) {
  std::vector<std::string> open;
  bool rooted = false;
  std::size_t at = 0;
  const auto fault = [&](const std::string& what) { return what + " at byte " + std::to_string(at); };
  const auto entity = [&] {
    for (const char* known : {"&amp;", "&lt;", "&gt;", "&quot;"})
      if (text.substr(at).starts_with(known)) return true;
    return false;
  };
  const auto is_name = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == ':';
  };
  while (at < text.size()) {
    const char c = text[at];
    if (c != '<') {
      if (c == '>' || (c == '&' && !entity())) return fault("an unescaped character");
      if (open.empty() && std::isspace(static_cast<unsigned char>(c)) == 0)
        return fault("text outside the root");
      ++at;
      continue;
    }
    ++at;
    const bool closes = at < text.size() && text[at] == '/';
    if (closes) ++at;
    std::string name;
    while (at < text.size() && is_name(text[at])) name += text[at++];
    if (name.empty()) return fault("no name");
    std::set<std::string> attributes;
    bool alone = false;
    while (true) {
      while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at])) != 0) ++at;
      if (at >= text.size()) return fault("no end");
      if (text[at] == '>') break;
      if (text[at] == '/') {
        alone = true;
        ++at;
        continue;
      }
      std::string attribute;
      while (at < text.size() && is_name(text[at])) attribute += text[at++];
      if (attribute.empty() || !attributes.insert(attribute).second)
        return fault("attribute '" + attribute + "'");
      if (text.substr(at, 2) != "=\"") return fault("no quoted value");
      for (at += 2; at < text.size() && text[at] != '"'; ++at)
        if (text[at] == '<' || (text[at] == '&' && !entity())) return fault("an unescaped character");
      ++at;
    }
    ++at;
    if (closes) {
      if (open.empty() || open.back() != name) return fault("</" + name + "> closes nothing");
      open.pop_back();
    } else {
      if (open.empty() && rooted) return fault("a second root");
      rooted = true;
      if (!alone) open.push_back(name);
    }
  }
  if (!open.empty()) return fault("<" + open.back() + "> is not closed");
  return rooted ? "" : fault("no root");
}

}  // namespace graingrad::apps::test
