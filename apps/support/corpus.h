// Text to train on: a file's bytes as tokens, read where they are needed.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace graingrad::apps {

/// A file cut into overlapping windows of sequence + 1 bytes (the last byte of one is the first of the next),
/// in an order that is shuffled anew each epoch. A token is a byte, modulo the vocabulary where that is below
/// 256. Nothing is kept in memory: every rank reads its own samples, from any thread.
class ByteCorpus {
 public:
  /// Opens `path` for sequences of `sequence` tokens out of `vocab`. Throws DataError, naming file and
  /// reason, where it is missing, a directory or not a regular file, unreadable, empty, or has fewer than
  /// sequence + 1 bytes; UsageError unless sequence >= 1 and vocab >= 1.
  ByteCorpus(std::string path, std::int64_t sequence, std::int64_t vocab, std::uint64_t seed);
  ~ByteCorpus();
  ByteCorpus(ByteCorpus&& other) noexcept;
  ByteCorpus(const ByteCorpus&) = delete;
  ByteCorpus& operator=(const ByteCorpus&) = delete;
  ByteCorpus& operator=(ByteCorpus&&) = delete;

  const std::string& path() const { return path_; }
  /// Bytes of the file when it was opened.
  std::int64_t bytes() const { return bytes_; }
  /// Windows in the file, and so samples in an epoch: floor((bytes - 1) / sequence).
  std::int64_t windows() const { return windows_; }

  /// The window that global sample `sample` (0, 1, 2, ... over the whole training) is: a pure function of the
  /// seed, the epoch sample / windows() and the place sample % windows().
  std::int64_t window_of(std::int64_t sample) const;

  /// Writes global sample `sample` as `sequence` input tokens and, one byte further, `sequence` target
  /// tokens. Throws UsageError where a span's size is not the sequence, DataError where the file has shrunk
  /// or cannot be read.
  void fill(std::int64_t sample, std::span<std::int32_t> inputs, std::span<std::int32_t> targets) const;

 private:
  std::string path_;
  std::int64_t sequence_;
  std::int64_t vocab_;
  std::uint64_t seed_;
  std::int64_t bytes_ = 0;
  std::int64_t windows_ = 0;
  int file_ = -1;
};

}  // namespace graingrad::apps
