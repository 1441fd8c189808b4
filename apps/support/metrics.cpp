#include "apps/support/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "value/error.h"

namespace graingrad::apps {

MetricsFile::MetricsFile(std::string path) : path_(std::move(path)) {
  if (path_.empty()) return;
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0)
    throw IoError(fmt::format("{}: cannot be written: {}; give another file with --metrics", path_,
                              std::strerror(errno)));
}

MetricsFile::~MetricsFile() {
  if (file_ >= 0) ::close(file_);
}

void MetricsFile::write(const Json& record) {
  if (file_ < 0) return;
  const std::string text = record.dump() + "\n";
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(file_, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0)
      throw IoError(fmt::format("{}: cannot be written: {}; free space or give another file with --metrics",
                                path_, std::strerror(errno)));
    done += static_cast<std::size_t>(wrote);
  }
}

void MetricsFile::close() {
  if (file_ < 0) return;
  // A pipe or a terminal cannot be synced, and need not be.
  const bool synced = ::fsync(file_) == 0 || errno == EINVAL || errno == EROFS;
  const int error = errno;
  const bool closed = ::close(file_) == 0;
  file_ = -1;
  if (!synced || !closed)
    throw IoError(fmt::format("{}: did not arrive whole: {}; free space or give another file with --metrics",
                              path_, std::strerror(synced ? errno : error)));
}

void Output::line(std::string_view text) const {
  std::FILE* stream = json_ ? stderr : stdout;
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fputc('\n', stream);
  std::fflush(stream);
}

void Output::final_record(const Json& record) const {
  if (!json_ || !speaks_) return;
  const std::string text = record.dump() + "\n";
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw IoError(
        fmt::format("stdout: cannot be written: {}; free space or send it elsewhere", std::strerror(errno)));
}

}  // namespace graingrad::apps
