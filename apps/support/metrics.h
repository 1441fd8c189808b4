// Where a run's words and records go: --metrics FILE and --json.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "apps/support/text_file.h"

namespace graingrad::apps {

/// A JSON Lines file, written through at every record. Does nothing where the path is empty.
class MetricsFile {
 public:
  /// Creates or empties the file. Throws IoError where that fails.
  explicit MetricsFile(std::string path) : file_(std::move(path), "--metrics") {}

  bool is_open() const { return file_.is_open(); }
  /// Appends a record (apps/support/records.h) and ends its line. Throws IoError where it cannot be written
  /// whole (a full disk).
  void write(std::string_view record) {
    if (file_.is_open()) file_.write(std::string(record) + "\n");
  }
  /// Flushes to the disk and closes; further writes do nothing. Throws IoError where the file did not arrive
  /// whole.
  void close() { file_.close(); }

 private:
  TextFile file_;
};

/// What a program says. One rank of a job speaks; with `json`, stdout carries nothing but the final record,
/// and everything else goes to stderr.
class Output {
 public:
  Output(bool json, bool speaks) : json_(json), speaks_(speaks) {}

  bool speaks() const { return speaks_; }
  /// One line (fmt), where this rank speaks.
  template <class... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) const {
    if (speaks_) line(fmt::format(format, std::forward<Args>(args)...));
  }
  /// The final record, as one line on stdout; only with `json`. Throws IoError where stdout takes it not.
  void final_record(std::string_view record) const;

 private:
  void line(std::string_view text) const;

  bool json_;
  bool speaks_;
};

}  // namespace graingrad::apps
