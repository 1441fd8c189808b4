#include "apps/support/build_info.h"

#include "commit.h"  // which the build writes

namespace graingrad::apps {

std::string version() { return GRAINGRAD_VERSION; }
std::string commit() { return GRAINGRAD_COMMIT; }
std::string default_corpus_path() { return GRAINGRAD_DEFAULT_CORPUS; }

}  // namespace graingrad::apps
