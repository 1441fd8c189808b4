#include "apps/support/corpus.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "apps/support/permutation.h"
#include "value/error.h"

namespace graingrad::apps {

ByteCorpus::ByteCorpus(std::string path, std::int64_t sequence, std::int64_t vocab, std::uint64_t seed)
    : path_(std::move(path)), sequence_(sequence), vocab_(vocab), seed_(seed) {
  if (sequence < 1) throw UsageError(fmt::format("a sequence of {} tokens; give at least 1", sequence));
  if (vocab < 1) throw UsageError(fmt::format("a vocabulary of {} tokens; give at least 1", vocab));
  // What it is decides before it is opened: opening a pipe would wait for its other end.
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0)
    throw DataError(fmt::format("{}: {}; give a text file with --data", path_, std::strerror(errno)));
  if (S_ISDIR(status.st_mode))
    throw DataError(fmt::format("{}: is a directory; give one text file with --data", path_));
  if (!S_ISREG(status.st_mode))
    throw DataError(
        fmt::format("{}: is not a regular file; copy it into one and give that with --data", path_));
  bytes_ = status.st_size;
  if (bytes_ == 0) throw DataError(fmt::format("{}: is empty; give a text file with --data", path_));
  if (bytes_ - 1 < sequence_)
    throw DataError(
        fmt::format("{}: has {} bytes, too short for one sequence of {} tokens and its last target; "
                    "give a longer file or a --sequence of at most {}",
                    path_, bytes_, sequence_, bytes_ - 1));
  windows_ = (bytes_ - 1) / sequence_;
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0)
    throw DataError(fmt::format("{}: cannot be opened: {}; make it readable or give another file with --data",
                                path_, std::strerror(errno)));
}

ByteCorpus::~ByteCorpus() {
  if (file_ >= 0) ::close(file_);
}

ByteCorpus::ByteCorpus(ByteCorpus&& other) noexcept
    : path_(std::move(other.path_)),
      sequence_(other.sequence_),
      vocab_(other.vocab_),
      seed_(other.seed_),
      bytes_(other.bytes_),
      windows_(other.windows_),
      file_(std::exchange(other.file_, -1)) {}

std::int64_t ByteCorpus::window_of(std::int64_t sample) const {
  if (sample < 0) throw UsageError(fmt::format("sample {} of {}; count from 0", sample, path_));
  return Permutation(windows_, seed_, static_cast<std::uint64_t>(sample / windows_))(sample % windows_);
}

void ByteCorpus::fill(std::int64_t sample, std::span<std::int32_t> inputs,
                      std::span<std::int32_t> targets) const {
  if (std::ssize(inputs) != sequence_ || std::ssize(targets) != sequence_)
    throw UsageError(
        fmt::format("{}: spans of {} and {} tokens for sequences of {}; give the sequence's length", path_,
                    inputs.size(), targets.size(), sequence_));
  const std::int64_t first = window_of(sample) * sequence_;
  std::array<unsigned char, 4096> buffer;
  for (std::int64_t done = 0; done <= sequence_;) {
    const auto wanted =
        static_cast<std::size_t>(std::min<std::int64_t>(std::ssize(buffer), sequence_ + 1 - done));
    const ssize_t got = ::pread(file_, buffer.data(), wanted, first + done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      throw DataError(fmt::format("{}: {} at byte {}; leave the file alone while it is trained on", path_,
                                  got < 0 ? std::strerror(errno) : "ends early", first + done));
    for (ssize_t i = 0; i < got; ++i, ++done) {
      const auto token = static_cast<std::int32_t>(buffer[static_cast<std::size_t>(i)] % vocab_);
      if (done < sequence_) inputs[static_cast<std::size_t>(done)] = token;
      if (done > 0) targets[static_cast<std::size_t>(done - 1)] = token;
    }
  }
}

}  // namespace graingrad::apps
