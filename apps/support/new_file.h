// A file that appears whole or not at all.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace graingrad::apps {

/// Writes to PATH.tmp and renames it to PATH in the end, so that nobody ever sees a part of it and a file
/// that stood there before stays until the new one is complete. Without commit() nothing is left behind.
class NewFile {
 public:
  /// `flag` is what named the file ("--save"). Throws IoError where it cannot be made, or where something
  /// other than a regular file stands at PATH.
  NewFile(std::string path, std::string flag);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  /// Appends. Throws IoError where the bytes cannot be written whole (a full disk).
  void write(std::span<const std::byte> bytes);
  /// Flushes to the disk, renames, and flushes the folder. Throws IoError where the file did not arrive
  /// whole.
  void commit();

 private:
  [[noreturn]] void refuse(int error) const;

  std::string path_, part_, flag_;
  int file_ = -1;
};

}  // namespace graingrad::apps
