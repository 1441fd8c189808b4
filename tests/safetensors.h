// Reads safetensors files for tests: strict, so that a damaged golden file is no golden file.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace graingrad {

struct StoredTensor {
  std::string dtype;  ///< "F32" or "F64"
  std::vector<std::int64_t> shape;
  std::vector<double> numbers;  ///< row-major
};

/// The bytes of a file. Throws std::runtime_error where it cannot be read.
inline std::string bytes_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The tensors in the bytes of a safetensors file, by name. The header must be an object without repeated
/// keys, and the tensors must cover the bytes behind it without hole, overlap or rest. Throws
/// std::runtime_error.
inline std::map<std::string, StoredTensor> parse_safetensors(const std::string& bytes) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) throw std::runtime_error("safetensors: " + what);
  };
  std::uint64_t length = 0;
  require(bytes.size() >= sizeof length, "too short for a length");
  std::memcpy(&length, bytes.data(), sizeof length);
  require(length <= 100'000'000 && length <= bytes.size() - sizeof length, "the header is cut off");
  std::vector<std::set<std::string>> keys;
  const auto no_repeats = [&](int, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::key) require(keys.back().insert(parsed.get<std::string>()).second, "a repeated key");
    if (event == Event::object_end) keys.pop_back();
    return true;
  };
  const auto begin = bytes.begin() + sizeof length;
  const auto header = nlohmann::json::parse(begin, begin + static_cast<std::ptrdiff_t>(length), no_repeats);
  require(header.is_object(), "the header is no object");
  const std::string data = bytes.substr(sizeof length + length);
  std::map<std::uint64_t, std::uint64_t> covered;
  std::map<std::string, StoredTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    StoredTensor tensor{
        entry.at("dtype").get<std::string>(), entry.at("shape").get<std::vector<std::int64_t>>(), {}};
    require(tensor.dtype == "F32" || tensor.dtype == "F64", name + " is neither F32 nor F64");
    const auto offsets = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
    require(offsets.size() == 2 && offsets[0] <= offsets[1] && offsets[1] <= data.size(),
            name + " lies outside the file");
    std::uint64_t count = 1;
    for (const std::int64_t extent : tensor.shape) {
      require(extent > 0 && count <= data.size() / static_cast<std::uint64_t>(extent),
              name + " has a shape that does not fit");
      count *= static_cast<std::uint64_t>(extent);
    }
    const std::uint64_t size = tensor.dtype == "F32" ? sizeof(float) : sizeof(double);
    require(offsets[1] - offsets[0] == count * size, name + " has another size than its shape");
    require(covered.emplace(offsets[0], offsets[1]).second, name + " lies over another tensor");
    for (std::uint64_t i = 0; i < count; ++i) {
      const char* from = data.data() + offsets[0] + i * size;
      float narrow = 0;
      double wide = 0;
      size == sizeof narrow ? std::memcpy(&narrow, from, sizeof narrow)
                            : std::memcpy(&wide, from, sizeof wide);
      tensor.numbers.push_back(size == sizeof narrow ? narrow : wide);
    }
    tensors.emplace(name, std::move(tensor));
  }
  std::uint64_t end = 0;
  for (const auto& [first, last] : covered) {
    require(first == end, "a hole or an overlap at byte " + std::to_string(end));
    end = last;
  }
  require(end == data.size(), "bytes behind the last tensor");
  return tensors;
}

}  // namespace graingrad
