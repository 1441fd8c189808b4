#include "apps/support/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "value/error.h"

namespace graingrad::apps {
namespace {

using nlohmann::json;

constexpr std::int64_t kLengthBytes = 8, kLongestHeader = 100'000'000;
constexpr const char* kMetadata = "__metadata__";
constexpr std::array<std::pair<const char*, DType>, 4> kDTypes{
    {{"F32", DType::f32}, {"F64", DType::f64}, {"I32", DType::i32}, {"BF16", DType::bf16}}};

[[noreturn]] void refuse(const std::string& path, const std::string& reason) {
  throw DataError(fmt::format("{}: {}; give a whole safetensors file", path, reason));
}

// The deepest that a header goes is the list of a tensor's shape.
json parse_strictly(const std::string& path, std::string_view text) {
  std::vector<std::set<std::string>> keys;
  const auto look = [&](int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    const bool opens = event == Event::object_start || event == Event::array_start;
    if (opens && depth > 2) refuse(path, "the header nests too deeply");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second)
      refuse(path, fmt::format("the header has '{}' twice", parsed.get<std::string>()));
    return true;
  };
  try {
    if (!text.starts_with('{')) refuse(path, "the header is no JSON object");
    return json::parse(text.begin(), text.end(), look);
  } catch (const json::exception& error) {
    refuse(path, fmt::format("the header is no JSON ({})", error.what()));
  }
}

// One tensor of the header, and where it lies in the data.
struct Entry {
  std::string name;
  Spec spec;
  std::uint64_t first = 0, last = 0;
};

std::vector<std::uint64_t> whole_numbers(const std::string& path, const std::string& name, const char* key,
                                         const json& list) {
  const bool good = list.is_array() && std::all_of(list.begin(), list.end(),
                                                   [](const json& n) { return n.is_number_unsigned(); });
  if (!good) refuse(path, fmt::format("tensor '{}': {} is no list of whole numbers", name, key));
  return list.get<std::vector<std::uint64_t>>();
}

Entry entry_of(const std::string& path, const std::string& name, const json& entry, std::uint64_t bytes) {
  const auto refuse_it = [&](const std::string& reason) {
    refuse(path, fmt::format("tensor '{}': {}", name, reason));
  };
  for (const char* key : {"dtype", "shape", "data_offsets"})
    if (!entry.is_object() || !entry.contains(key)) refuse_it(fmt::format("has no {}", key));
  if (entry.size() != 3 || !entry["dtype"].is_string())
    refuse_it("is described by more than dtype, shape and data_offsets");
  const auto dtype = std::find_if(kDTypes.begin(), kDTypes.end(), [&](const auto& known) {
    return entry["dtype"].get_ref<const std::string&>() == known.first;
  });
  if (dtype == kDTypes.end())
    refuse_it(fmt::format("dtype '{}' is none of F32, F64, I32, BF16", entry["dtype"].get<std::string>()));
  std::vector<std::int64_t> dims;
  std::uint64_t count = 1;
  for (const std::uint64_t extent : whole_numbers(path, name, "shape", entry["shape"])) {
    if (extent > 0 && count > bytes / extent) refuse_it("its shape has more elements than the file");
    count *= extent;
    dims.push_back(static_cast<std::int64_t>(extent));
  }
  if (dims.size() > kMaxRank) refuse_it(fmt::format("has {} dims, more than {}", dims.size(), kMaxRank));
  const std::vector<std::uint64_t> offsets = whole_numbers(path, name, "data_offsets", entry["data_offsets"]);
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > bytes)
    refuse_it(fmt::format("its data_offsets are not in the file's {} bytes of data", bytes));
  if (offsets[1] - offsets[0] != count * size_of(dtype->second))
    refuse_it(fmt::format("has {} bytes of data, which is not what its shape and dtype need",
                          offsets[1] - offsets[0]));
  return {name, {dtype->second, Shape(dims)}, offsets[0], offsets[1]};
}

}  // namespace

SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view text,
                                           std::int64_t data_bytes) {
  const json parsed = parse_strictly(path, text);
  SafetensorsHeader header;
  std::vector<Entry> entries;
  for (const auto& [name, entry] : parsed.items()) {
    if (name != kMetadata) {
      entries.push_back(entry_of(path, name, entry, static_cast<std::uint64_t>(data_bytes)));
      continue;
    }
    const bool texts = entry.is_object() && std::all_of(entry.begin(), entry.end(),
                                                        [](const json& value) { return value.is_string(); });
    if (!texts) refuse(path, "the header's metadata are not texts by name");
    header.metadata = entry.get<std::map<std::string, std::string>>();
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.first, a.last) < std::pair(b.first, b.last);
  });
  const std::int64_t data = kLengthBytes + std::ssize(text);
  std::uint64_t end = 0;
  for (const Entry& e : entries) {
    if (e.first != end)
      refuse(path, fmt::format("tensor '{}': {} at byte {} of the data", e.name,
                               e.first < end ? "lies over another one" : "leaves a hole in front of it",
                               std::min(e.first, end)));
    end = e.last;
    header.tensors.emplace(e.name, StoredTensor{e.spec, data + static_cast<std::int64_t>(e.first)});
  }
  if (end != static_cast<std::uint64_t>(data_bytes))
    refuse(path,
           fmt::format("has {} bytes behind the last tensor", data_bytes - static_cast<std::int64_t>(end)));
  return header;
}

std::string safetensors_head(const std::map<std::string, Spec>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  std::int64_t first = 0;
  for (const auto& [name, spec] : tensors) {
    const auto dtype = std::find_if(kDTypes.begin(), kDTypes.end(),
                                    [&](const auto& known) { return known.second == spec.dtype; });
    const auto dims = spec.shape.dims();
    header[name] = {{"dtype", dtype->first},
                    {"shape", std::vector<std::int64_t>(dims.begin(), dims.end())},
                    {"data_offsets", {first, first + spec.bytes()}}};
    first += spec.bytes();
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string head(kLengthBytes, '\0');
  for (std::size_t i = 0; i < head.size(); ++i) head[i] = static_cast<char>((text.size() >> (8 * i)) & 0xFF);
  return head + text;
}

SafetensorsFile::SafetensorsFile(std::string path) : path_(std::move(path)) {
  // What it is decides before it is opened: opening a pipe would wait for its other end.
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0) refuse(path_, std::strerror(errno));
  if (S_ISDIR(status.st_mode)) refuse(path_, "is a directory");
  if (!S_ISREG(status.st_mode)) refuse(path_, "is not a regular file");
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0) refuse(path_, fmt::format("cannot be opened: {}", std::strerror(errno)));
  try {
    const std::int64_t bytes = status.st_size;
    if (bytes < kLengthBytes) refuse(path_, fmt::format("has {} bytes, too few for a header", bytes));
    std::array<unsigned char, kLengthBytes> raw;
    read_bytes(0, kLengthBytes, raw.data());
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < raw.size(); ++i) length |= static_cast<std::uint64_t>(raw[i]) << (8 * i);
    if (length > static_cast<std::uint64_t>(bytes - kLengthBytes))
      refuse(path_, fmt::format("its header of {} bytes goes beyond its {} bytes", length, bytes));
    if (length > static_cast<std::uint64_t>(kLongestHeader))
      refuse(path_, fmt::format("its header of {} bytes is longer than {}", length, kLongestHeader));
    std::string text(length, '\0');
    read_bytes(kLengthBytes, static_cast<std::int64_t>(length), text.data());
    header_ = parse_safetensors_header(path_, text, bytes - kLengthBytes - static_cast<std::int64_t>(length));
  } catch (...) {
    ::close(file_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() {
  if (file_ >= 0) ::close(file_);
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : path_(std::move(other.path_)),
      header_(std::move(other.header_)),
      file_(std::exchange(other.file_, -1)) {}

const StoredTensor& SafetensorsFile::tensor(const std::string& name) const {
  const auto found = header_.tensors.find(name);
  if (found == header_.tensors.end()) refuse(path_, fmt::format("has no tensor '{}'", name));
  return found->second;
}

void SafetensorsFile::read(const StoredTensor& tensor, std::int64_t first, std::int64_t count,
                           void* to) const {
  if (first < 0 || count < 0 || first > tensor.spec.shape.size() - count)
    throw UsageError(fmt::format("{}: elements [{}, {}) of a tensor {}; ask for what it has", path_, first,
                                 first + count, tensor.spec.to_string()));
  const auto size = static_cast<std::int64_t>(size_of(tensor.spec.dtype));
  read_bytes(tensor.offset + first * size, count * size, to);
}

void SafetensorsFile::read_bytes(std::int64_t offset, std::int64_t bytes, void* to) const {
  for (std::int64_t done = 0; done < bytes;) {
    const ssize_t got =
        ::pread(file_, static_cast<char*>(to) + done, static_cast<std::size_t>(bytes - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      refuse(path_,
             fmt::format("{} at byte {}", got < 0 ? std::strerror(errno) : "ends early", offset + done));
    done += got;
  }
}

}  // namespace graingrad::apps
