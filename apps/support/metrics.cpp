#include "apps/support/metrics.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "value/error.h"

namespace graingrad::apps {

void Output::line(std::string_view text) const {
  std::FILE* stream = json_ ? stderr : stdout;
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fputc('\n', stream);
  std::fflush(stream);
}

void Output::final_record(std::string_view record) const {
  if (!json_ || !speaks_) return;
  const std::string text = std::string(record) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw IoError(
        fmt::format("stdout: cannot be written: {}; free space or send it elsewhere", std::strerror(errno)));
}

}  // namespace graingrad::apps
