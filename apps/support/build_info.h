// What was built.
#pragma once

#include <string>

namespace graingrad::apps {

/// The project's version, "0.1.0".
std::string version();
/// The commit that was built ("1a2b3c4d5e6f", with "-dirty" where the tree differs from it), or "unknown"
/// outside git.
std::string commit();
/// The text that programs train on where no --data is given: the C++ standard library's headers, one after
/// another.
std::string default_corpus_path();

}  // namespace graingrad::apps
