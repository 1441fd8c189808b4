#include "parallel/checkpoint.h"

#include <fmt/format.h>

#include <cstring>
#include <tuple>
#include <utility>

#include "value/error.h"

namespace graingrad::parallel {
namespace {

// A piece of a tensor that every rank knows, as it travels.
constexpr std::size_t kNumbers = 5;

auto key_of(const CheckpointPiece& p) { return std::tuple(p.dim, p.start, p.stop, p.first, p.last); }

std::vector<OwnedPiece> pieces_of_all(std::span<const PieceInMemory> own, Communicator& ranks) {
  const std::string scope = "pieces of " + own.front().piece.name;
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(ranks.size()), 1);
  std::vector<std::int64_t> counts(ones.size()), mine;
  const auto count = static_cast<std::int64_t>(own.size() * kNumbers);
  ranks.all_gather(std::span(&count, 1), std::span(counts), ones, scope);
  for (const PieceInMemory& held : own)
    for (const std::int64_t n : {static_cast<std::int64_t>(held.piece.dim), held.piece.start, held.piece.stop,
                                 held.piece.first, held.piece.last})
      mine.push_back(n);
  std::int64_t total = 0;
  for (const std::int64_t n : counts) total += n;
  std::vector<std::int64_t> all(static_cast<std::size_t>(total));
  ranks.all_gather(std::span<const std::int64_t>(mine), std::span(all), counts, scope);
  std::vector<OwnedPiece> pieces;
  std::size_t at = 0;
  for (int r = 0; r < ranks.size(); ++r)
    for (std::int64_t i = 0; i < counts[static_cast<std::size_t>(r)]; i += kNumbers, at += kNumbers)
      pieces.push_back({r,
                        {own.front().piece.name, own.front().piece.serial, static_cast<int>(all[at]),
                         all[at + 1], all[at + 2], all[at + 3], all[at + 4]}});
  return pieces;
}

// Where this rank has a piece that it owns.
const std::byte* data_of(const CheckpointPiece& piece, std::span<const PieceInMemory> own) {
  return std::find_if(own.begin(), own.end(),
                      [&](const PieceInMemory& held) { return key_of(held.piece) == key_of(piece); })
      ->data;
}

}  // namespace

CheckpointPiece piece_of(const ParameterPart& part, std::string name) {
  const bool cut = part.dim >= 0;
  return {std::move(name),
          part.serial.spec(),
          part.dim,
          cut ? part.start() : 0,
          cut ? part.stop() : 0,
          0,
          part.local.spec().shape.size()};
}

std::vector<OwnedPiece> owners_of(std::vector<OwnedPiece> pieces) {
  if (pieces.empty()) throw UsageError("a tensor without pieces has no owners; give each rank's");
  const CheckpointPiece like = pieces.front().piece;
  const auto refuse = [&](const std::string& reason) {
    throw UsageError(fmt::format("{}: the ranks' pieces {}; let them make up {}", like.name, reason,
                                 like.serial.to_string()));
  };
  std::erase_if(pieces, [](const OwnedPiece& p) { return p.piece.elements() <= 0; });
  std::sort(pieces.begin(), pieces.end(), [](const OwnedPiece& a, const OwnedPiece& b) {
    return std::tuple(key_of(a.piece), a.rank) < std::tuple(key_of(b.piece), b.rank);
  });
  const auto equal = [](const OwnedPiece& a, const OwnedPiece& b) {
    return key_of(a.piece) == key_of(b.piece);
  };
  pieces.erase(std::unique(pieces.begin(), pieces.end(), equal), pieces.end());
  // Parts lie one behind the other along the dim, and ranges one behind the other in each part.
  std::int64_t index = 0;
  for (std::size_t i = 0; i < pieces.size();) {
    const CheckpointPiece& part = pieces[i].piece;
    if (part.dim != pieces.front().piece.dim) refuse("are cut along different dims");
    if (part.start != index) refuse(fmt::format("do not meet at index {} of dim {}", index, part.dim));
    std::int64_t element = 0;
    for (; i < pieces.size() && pieces[i].piece.start == part.start && pieces[i].piece.dim == part.dim; ++i) {
      const CheckpointPiece& piece = pieces[i].piece;
      if (piece.stop != part.stop || piece.first != element)
        refuse(fmt::format("do not meet at element {} of indices [{}, {})", element, part.start, part.stop));
      element = piece.last;
    }
    if (element != part.part_elements())
      refuse(fmt::format("end at element {} of indices [{}, {})", element, part.start, part.stop));
    index = part.stop;
  }
  const int dim = pieces.empty() ? -1 : pieces.front().piece.dim;
  const bool whole =
      dim < 0 ? !pieces.empty() || like.serial.shape.size() == 0 : index == like.serial.shape[dim];
  if (!whole) refuse(fmt::format("end at index {} of dim {}", index, dim));
  return pieces;
}

void gather_serial(std::span<const PieceInMemory> own, Communicator& ranks,
                   const std::function<void(std::span<const std::byte>)>& write, std::int64_t chunk_bytes) {
  const std::vector<OwnedPiece> owners = owners_of(pieces_of_all(own, ranks));
  const Spec& serial = own.front().piece.serial;
  const auto size = static_cast<std::int64_t>(size_of(serial.dtype));
  const std::int64_t total = serial.shape.size(),
                     most = std::min(total, std::max<std::int64_t>(1, chunk_bytes / size));
  const int me = ranks.rank();
  const bool writes = me == 0;
  std::vector<std::byte> packed(static_cast<std::size_t>(most * size)), chunk(writes ? packed.size() : 0);
  std::vector<Send> sends;
  std::vector<Receive> receives;
  const auto copy = [size](std::byte* to, const std::byte* from, std::int64_t count) {
    std::memcpy(to, from, static_cast<std::size_t>(count * size));
  };
  for (std::int64_t from = 0; from < total; from += most) {
    const std::int64_t to = std::min(total, from + most);
    sends.clear();
    receives.clear();
    std::byte* at = packed.data();
    for (const OwnedPiece& owner : owners) {
      if (!writes && owner.rank != me) continue;
      const std::byte* const data = owner.rank == me ? data_of(owner.piece, own) : nullptr;
      std::byte* const begin = at;
      owner.piece.for_runs(
          [&](std::int64_t held, std::int64_t whole, std::int64_t count) {
            if (writes && data != nullptr)
              return copy(chunk.data() + (whole - from) * size, data + held * size, count);
            if (data != nullptr) copy(at, data + held * size, count);
            at += count * size;
          },
          from, to);
      if (at == begin) continue;
      if (writes)
        receives.push_back({owner.rank, begin, at - begin});
      else
        sends.push_back({0, begin, at - begin});
    }
    if (!sends.empty() || !receives.empty())
      ranks.exchange(sends, receives, "pieces of " + own.front().piece.name);
    if (!writes) continue;
    const std::byte* arrived = packed.data();
    for (const OwnedPiece& owner : owners)
      if (owner.rank != me)
        owner.piece.for_runs(
            [&](std::int64_t, std::int64_t whole, std::int64_t count) {
              copy(chunk.data() + (whole - from) * size, arrived, count);
              arrived += count * size;
            },
            from, to);
    write(std::span(chunk).first(static_cast<std::size_t>((to - from) * size)));
  }
}

std::vector<std::span<const PieceInMemory>> by_tensor(std::span<const PieceInMemory> pieces) {
  std::vector<std::span<const PieceInMemory>> tensors;
  for (std::size_t first = 0; first < pieces.size();) {
    std::size_t last = first;
    while (last < pieces.size() && pieces[last].piece.name == pieces[first].piece.name) ++last;
    tensors.push_back(pieces.subspan(first, last - first));
    first = last;
  }
  return tensors;
}

}  // namespace graingrad::parallel
