#include "apps/support/new_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "value/error.h"

namespace graingrad::apps {

NewFile::NewFile(std::string path, std::string flag)
    : path_(std::move(path)), part_(path_ + ".tmp"), flag_(std::move(flag)) {
  // A rename would put the file in the place of a device, or of a pipe.
  struct stat status {};
  if (::stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    throw IoError(fmt::format("{}: is {}; give the name of a file with {}", path_,
                              S_ISDIR(status.st_mode) ? "a directory" : "not a regular file", flag_));
  file_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) refuse(errno);
}

NewFile::~NewFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(part_.c_str());
}

void NewFile::refuse(int error) const {
  throw IoError(fmt::format("{}: cannot be written: {}; free space or give another file with {}", path_,
                            std::strerror(error), flag_));
}

void NewFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(file_, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) refuse(wrote < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<std::size_t>(wrote));
  }
}

void NewFile::commit() {
  if (::fsync(file_) != 0) refuse(errno);
  if (std::rename(part_.c_str(), path_.c_str()) != 0) refuse(errno);
  const bool closed = ::close(std::exchange(file_, -1)) == 0;
  if (!closed) refuse(errno);
  // The name, too, has to arrive; file systems without such a flush keep it anyway.
  const std::string parent = std::filesystem::path(path_).parent_path().string();
  const int folder = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  ::fsync(folder);
  ::close(folder);
}

}  // namespace graingrad::apps
