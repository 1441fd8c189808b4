#include "apps/support/text_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "value/error.h"

namespace graingrad::apps {

TextFile::TextFile(std::string path, std::string flag) : path_(std::move(path)), flag_(std::move(flag)) {
  if (path_.empty()) return;
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0)
    throw IoError(fmt::format("{}: cannot be written: {}; give another file with {}", path_,
                              std::strerror(errno), flag_));
}

TextFile::~TextFile() {
  if (file_ >= 0) ::close(file_);
}

TextFile::TextFile(TextFile&& other) noexcept
    : path_(std::move(other.path_)), flag_(std::move(other.flag_)), file_(std::exchange(other.file_, -1)) {}

void TextFile::write(std::string_view text) {
  if (file_ < 0) return;
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(file_, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0)
      throw IoError(fmt::format("{}: cannot be written: {}; free space or give another file with {}", path_,
                                std::strerror(errno), flag_));
    done += static_cast<std::size_t>(wrote);
  }
}

void TextFile::close() {
  if (file_ < 0) return;
  // A pipe or a terminal cannot be synced, and need not be.
  const bool synced = ::fsync(file_) == 0 || errno == EINVAL || errno == EROFS;
  const int error = errno;
  const bool closed = ::close(file_) == 0;
  file_ = -1;
  if (!synced || !closed)
    throw IoError(fmt::format("{}: did not arrive whole: {}; free space or give another file with {}", path_,
                              std::strerror(synced ? errno : error), flag_));
}

}  // namespace graingrad::apps
