// A file that a program writes: made before the work begins, so that a bad path costs nothing.
#pragma once

#include <string>
#include <string_view>

namespace graingrad::apps {

/// A text file, written through. Does nothing where the path is empty.
class TextFile {
 public:
  TextFile() = default;
  /// Creates or empties the file; `flag` is what named it ("--metrics"). Throws IoError where that fails.
  TextFile(std::string path, std::string flag);
  ~TextFile();
  TextFile(TextFile&& other) noexcept;
  TextFile& operator=(TextFile&&) = delete;

  const std::string& path() const { return path_; }
  bool is_open() const { return file_ >= 0; }
  /// Appends. Throws IoError where the text cannot be written whole (a full disk).
  void write(std::string_view text);
  /// Flushes to the disk and closes; further writes do nothing. Throws IoError where the file did not arrive
  /// whole.
  void close();

 private:
  std::string path_, flag_;
  int file_ = -1;
};

}  // namespace graingrad::apps
