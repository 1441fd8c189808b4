// The safetensors format: the header's length (8 bytes, little-endian), the header as JSON, then the tensors'
// bytes one after another (https://github.com/huggingface/safetensors). Reading is strict.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "value/shape.h"

namespace graingrad::apps {

/// A tensor in a file: what it is, and where its first byte stands, counted from the file's beginning.
struct StoredTensor {
  Spec spec;
  std::int64_t offset = 0;
};

/// What a file says of itself.
struct SafetensorsHeader {
  std::map<std::string, StoredTensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// The header `json` of a file with `data_bytes` bytes behind it. It must be an object without repeated keys,
/// each tensor of a known dtype (F32, F64, I32, BF16), and the tensors must cover the data without hole,
/// overlap or rest. Throws DataError naming `path`, the tensor and the reason.
SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view json,
                                           std::int64_t data_bytes);

/// The head of a file that holds `tensors` in byte-wise order of their names, without padding between them:
/// length and header, which ends in blanks so that the data begins at a multiple of 8 bytes, as the format
/// asks for.
std::string safetensors_head(const std::map<std::string, Spec>& tensors,
                             const std::map<std::string, std::string>& metadata);

/// A file that is read where it is needed; nothing but the header is kept in memory.
class SafetensorsFile {
 public:
  /// Opens the file and reads its header, of at most 100 MB. Throws DataError, naming file and reason, where
  /// it is missing, a directory or not a regular file, unreadable, cut off or damaged.
  explicit SafetensorsFile(std::string path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(SafetensorsFile&&) = delete;

  const std::string& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }
  /// Throws DataError where there is none of this name.
  const StoredTensor& tensor(const std::string& name) const;
  /// Writes elements [first, first + count) of a tensor to `to`. Throws UsageError for elements that it does
  /// not have, DataError where the file has shrunk or cannot be read.
  void read(const StoredTensor& tensor, std::int64_t first, std::int64_t count, void* to) const;

 private:
  void read_bytes(std::int64_t offset, std::int64_t bytes, void* to) const;

  std::string path_;
  SafetensorsHeader header_;
  int file_ = -1;
};

}  // namespace graingrad::apps
