// Pieces of tensors on the ranks of the job: every way to cut gives the serial bytes back, a few at a time.
#include "parallel/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "tests/parallel/world.h"
#include "value/error.h"

namespace graingrad::parallel {
namespace {

using testing::HasSubstr;

// The tensor whose element i is i.
std::vector<double> serial_numbers(const Spec& spec) {
  std::vector<double> numbers(static_cast<std::size_t>(spec.shape.size()));
  std::iota(numbers.begin(), numbers.end(), 0.0);
  return numbers;
}

// A piece with its numbers.
struct Cut {
  CheckpointPiece piece;
  std::vector<double> numbers;
};
Cut cut_piece(CheckpointPiece piece) {
  const std::vector<double> serial = serial_numbers(piece.serial);
  std::vector<double> numbers(static_cast<std::size_t>(piece.elements()), -1.0);
  piece.for_runs([&](std::int64_t held, std::int64_t whole, std::int64_t count) {
    std::copy_n(serial.begin() + whole, count, numbers.begin() + held);
  });
  return {std::move(piece), std::move(numbers)};
}

// The ranks as a mesh: part t of `tensor` along `dim`, and of its elements the ranges d, d + data, ... of
// rounds * data.
std::vector<Cut> cuts_of_rank(const Spec& serial, int dim, int data, int tensor, int rank, int rounds) {
  const int d = rank / tensor, t = rank % tensor;
  CheckpointPiece piece{"w", serial, dim, 0, 0, 0, 0};
  if (dim >= 0) {
    piece.start = cut(serial.shape[dim], tensor, t);
    piece.stop = cut(serial.shape[dim], tensor, t + 1);
  }
  std::vector<Cut> cuts;
  for (int round = 0; round < rounds; ++round) {
    piece.first = cut(piece.part_elements(), data * rounds, round * data + d);
    piece.last = cut(piece.part_elements(), data * rounds, round * data + d + 1);
    cuts.push_back(cut_piece(piece));
  }
  return cuts;
}

std::vector<PieceInMemory> held(std::vector<Cut>& cuts) {
  std::vector<PieceInMemory> pieces;
  for (Cut& c : cuts) pieces.push_back({c.piece, reinterpret_cast<std::byte*>(c.numbers.data())});
  return pieces;
}

TEST(GatherSerial, PutsPiecesTogether) {
  Communicator& world = test_world();
  const Spec serial{DType::f64, {5, 6, 7}};
  std::vector<double> expected = serial_numbers(serial);
  for (const int dim : {-1, 0, 1, 2})
    for (int tensor = 1; tensor <= world.size(); ++tensor) {
      if (world.size() % tensor != 0) continue;
      for (const int rounds : {1, 3})
        for (const bool sharded : {false, true})
          for (const std::int64_t chunk : {8, 100, 1 << 20}) {
            // Without shards over data, all ranks along it have the same pieces; nor can a whole be cut.
            const int data = sharded ? (dim < 0 ? world.size() : world.size() / tensor) : 1;
            const int along = dim < 0 ? 1 : tensor;
            std::vector<Cut> cuts =
                cuts_of_rank(serial, dim, data, along, sharded ? world.rank() : world.rank() % along, rounds);
            const std::vector<PieceInMemory> own = held(cuts);
            std::vector<std::byte> got;
            gather_serial(
                own, world,
                [&](std::span<const std::byte> bytes) {
                  EXPECT_LE(std::ssize(bytes), chunk);
                  got.insert(got.end(), bytes.begin(), bytes.end());
                },
                chunk);
            if (world.rank() != 0) {
              EXPECT_TRUE(got.empty());
              continue;
            }
            EXPECT_EQ(got.size(), expected.size() * sizeof(double));
            EXPECT_TRUE(got.size() == expected.size() * sizeof(double) &&
                        std::memcmp(got.data(), expected.data(), got.size()) == 0)
                << "dim " << dim << ", " << data << " x " << along << ", " << rounds
                << " round(s), chunks of " << chunk;
          }
    }
}

// What every rank has is sent by none.
TEST(GatherSerial, SendsNoReplicas) {
  const auto group = test_world().split(0, test_world().rank(), "replicas");
  std::vector<Cut> cuts{cut_piece({"w", {DType::f64, {100}}, -1, 0, 0, 0, 100})};
  gather_serial(held(cuts), *group, [](std::span<const std::byte>) {});
  EXPECT_EQ(group->traffic(Collective::exchange).sent, 0);
}

TEST(CheckpointPiece, RunsInARangeAreThoseInside) {
  const Spec serial{DType::f64, {4, 6, 3}};
  for (const int dim : {-1, 0, 1, 2})
    for (const auto& [first, last] : std::vector<std::pair<int, int>>{{0, 5}, {2, 17}, {3, 3}, {0, 18}})
      for (std::int64_t from = 0; from < 72; from += 7)
        for (const std::int64_t to : {from, from + 1, from + 20, std::int64_t{100}}) {
          CheckpointPiece piece{"w", serial, dim, 0, 0, first, last};
          if (dim >= 0) piece.start = 1, piece.stop = 3;
          std::vector<std::pair<std::int64_t, std::int64_t>> all, inside;
          piece.for_runs([&](std::int64_t h, std::int64_t w, std::int64_t n) {
            for (std::int64_t i = 0; i < n; ++i)
              if (w + i >= from && w + i < to) all.emplace_back(h + i, w + i);
          });
          piece.for_runs(
              [&](std::int64_t h, std::int64_t w, std::int64_t n) {
                EXPECT_GT(n, 0);
                for (std::int64_t i = 0; i < n; ++i) inside.emplace_back(h + i, w + i);
              },
              from, to);
          EXPECT_EQ(inside, all) << dim << " [" << first << ", " << last << ") in [" << from << ", " << to
                                 << ")";
        }
}

// A parameter's part and its piece have the same elements.
TEST(CheckpointPiece, OfAPartHasItsElements) {
  const ParameterDescription serial{"w", {{6, "out", 2}, {10, "in"}}, {}, DType::f64};
  for (const int dim : {-1, 0, 1}) {
    ParameterPart part{serial, serial, dim, {}, 1};
    if (dim >= 0) {
      part.bounds = {0, 2, 5, serial.dims[static_cast<std::size_t>(dim)].extent};
      part.local.dims[static_cast<std::size_t>(dim)].extent = 3;
    }
    const CheckpointPiece piece = piece_of(part, "adamw.m.w");
    EXPECT_EQ(piece.name, "adamw.m.w");
    EXPECT_EQ(piece.elements(), part.local.spec().shape.size());
    piece.for_runs([&](std::int64_t held, std::int64_t whole, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i) EXPECT_EQ(part.serial_index(held + i), whole + i);
    });
  }
}

std::string refusal(std::vector<CheckpointPiece> pieces) {
  std::vector<OwnedPiece> owned;
  for (const CheckpointPiece& piece : pieces) owned.push_back({static_cast<int>(owned.size()), piece});
  try {
    owners_of(owned);
    return "";
  } catch (const UsageError& error) {
    return error.what();
  }
}

TEST(Owners, RefuseOverlapsAndHoles) {
  const Spec serial{DType::f32, {4, 6}};
  const auto piece = [&](int dim, std::int64_t start, std::int64_t stop, std::int64_t first,
                         std::int64_t last) {
    return CheckpointPiece{"w", serial, dim, start, stop, first, last};
  };
  EXPECT_EQ(refusal({piece(1, 0, 2, 0, 8), piece(1, 2, 6, 0, 10), piece(1, 2, 6, 10, 16),
                     piece(1, 0, 2, 0, 8), piece(1, 0, 2, 3, 3)}),
            "");
  EXPECT_THAT(refusal({piece(-1, 0, 0, 0, 20)}), HasSubstr("w: the ranks' pieces end at element 20"));
  EXPECT_THAT(refusal({piece(-1, 0, 0, 0, 20), piece(-1, 0, 0, 21, 24)}),
              HasSubstr("do not meet at element 20"));
  EXPECT_THAT(refusal({piece(-1, 0, 0, 0, 20), piece(-1, 0, 0, 16, 24)}),
              HasSubstr("do not meet at element 20"));
  EXPECT_THAT(refusal({piece(0, 0, 2, 0, 12), piece(0, 1, 4, 0, 18)}), HasSubstr("do not meet at index 2"));
  EXPECT_THAT(refusal({piece(0, 0, 2, 0, 12), piece(0, 3, 4, 0, 6)}), HasSubstr("do not meet at index 2"));
  EXPECT_THAT(refusal({piece(0, 0, 2, 0, 12)}), HasSubstr("end at index 2"));
  EXPECT_THAT(refusal({piece(0, 0, 2, 0, 12), piece(0, 0, 3, 0, 18)}),
              HasSubstr("do not meet at element 12"));
  EXPECT_THAT(refusal({piece(-1, 0, 0, 0, 24), piece(0, 0, 4, 0, 24)}), HasSubstr("different dims"));
  EXPECT_NE(refusal({piece(0, 0, 2, 4, 4)}), "");
  EXPECT_NE(refusal({}), "");
}

}  // namespace
}  // namespace graingrad::parallel
