#include "apps/support/replicas.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <map>
#include <utility>

#include "value/error.h"

namespace graingrad::apps {
namespace {

using parallel::PieceInMemory;

// Tensors whose hashes travel together: a message each would take longer.
constexpr std::size_t kTensors = 64;

// Of one tensor on one rank: which pieces, and their bytes.
struct Held {
  std::uint64_t pieces = 0, bytes = 0;
};

Held held_of(std::span<const PieceInMemory> tensor) {
  Held held;
  for (const PieceInMemory& h : tensor) {
    const std::int64_t place[] = {h.piece.dim, h.piece.start, h.piece.stop, h.piece.first, h.piece.last};
    held.pieces = hash_of(std::as_bytes(std::span(place)), held.pieces);
    const auto bytes = static_cast<std::size_t>(h.piece.elements()) * size_of(h.piece.serial.dtype);
    held.bytes = hash_of({h.data, bytes}, held.bytes);
  }
  return held;
}

// "3" or "1, 2, 5 and 61 more".
std::string list(const std::vector<int>& ranks) {
  constexpr std::size_t kMost = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(ranks.size(), kMost); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  return ranks.size() > kMost ? fmt::format("{} and {} more", text, ranks.size() - kMost) : text;
}

// Empty where all ranks have one hash; else who differs from most of them (from the lowest, in a tie).
std::string difference(const std::map<std::uint64_t, std::vector<int>>& ranks_by_hash) {
  if (ranks_by_hash.size() < 2) return "";
  const auto most =
      std::max_element(ranks_by_hash.begin(), ranks_by_hash.end(), [](const auto& a, const auto& b) {
        return a.second.size() != b.second.size() ? a.second.size() < b.second.size()
                                                  : a.second.front() > b.second.front();
      });
  std::vector<int> others;
  for (const auto& [hash, ranks] : ranks_by_hash)
    if (hash != most->first) others.insert(others.end(), ranks.begin(), ranks.end());
  std::sort(others.begin(), others.end());
  return fmt::format("rank(s) {} differ from rank(s) {}", list(others), list(most->second));
}

}  // namespace

std::uint64_t hash_of(std::span<const std::byte> bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

void check_replicas(std::span<const PieceInMemory> pieces, parallel::Communicator& world) {
  const std::vector<std::span<const PieceInMemory>> tensors = parallel::by_tensor(pieces);
  const auto ranks = static_cast<std::size_t>(world.size());
  std::vector<Held> mine, all;
  for (std::size_t first = 0; first < tensors.size(); first += kTensors) {
    const std::size_t count = std::min(kTensors, tensors.size() - first);
    mine.clear();
    for (std::size_t i = 0; i < count; ++i) mine.push_back(held_of(tensors[first + i]));
    all.resize(count * ranks);
    const std::vector<std::int64_t> counts(ranks, static_cast<std::int64_t>(count));
    world.all_gather(std::span<const Held>(mine), std::span(all), counts, "hashes of replicas");
    for (std::size_t i = 0; i < count; ++i) {
      std::map<std::uint64_t, std::map<std::uint64_t, std::vector<int>>> by_pieces;
      for (std::size_t r = 0; r < ranks; ++r) {
        const Held& held = all[r * count + i];
        by_pieces[held.pieces][held.bytes].push_back(static_cast<int>(r));
      }
      for (const auto& [piece, ranks_by_hash] : by_pieces)
        if (const std::string differ = difference(ranks_by_hash); !differ.empty())
          throw CommunicationError(fmt::format(
              "{}: the copies of {}; look for a faulty machine, and go on from what was saved before",
              tensors[first + i].front().piece.name, differ));
    }
  }
}

SameData::SameData(parallel::Communicator& group, std::vector<int> ranks)
    : group_(group), ranks_(std::move(ranks)), counts_(ranks_.size(), 1), hashes_(ranks_.size()) {}

void SameData::compare() {
  group_.all_gather(&hash_, hashes_.data(), counts_, sizeof hash_, "hashes of the data");
  hash_ = 0;
  const bool same = std::all_of(hashes_.begin(), hashes_.end(),
                                [this](std::uint64_t hash) { return hash == hashes_.front(); });
  if (same) return;
  std::map<std::uint64_t, std::vector<int>> ranks_by_hash;
  for (std::size_t i = 0; i < hashes_.size(); ++i) ranks_by_hash[hashes_[i]].push_back(ranks_[i]);
  throw DataError(
      fmt::format("the data of {}, though they cut one tensor; give them the same file with --data",
                  difference(ranks_by_hash)));
}

}  // namespace graingrad::apps
