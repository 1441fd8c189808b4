#include "apps/support/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "apps/support/new_file.h"

namespace graingrad::apps {
namespace {

using parallel::CheckpointPiece;
using parallel::PieceInMemory;

// Moments lie as nn::record_adamw lays them: one state for each run of consecutive trainable parameters,
// whose elements are those of the range of the run's number. A run, or an end of it, that this rank does not
// update has no moments here.
void add_moments(const Training& training, std::vector<PieceInMemory>& pieces) {
  const ParameterStore& store = training.store;
  const auto size = static_cast<std::int64_t>(size_of(store.dtype()));
  const std::vector<ParameterStore::Run> runs = store.trainable_runs();
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const std::string run = std::to_string(r);
    for (std::size_t i = runs[r].first; i < runs[r].first + runs[r].count; ++i) {
      const parallel::ParameterPart& part = training.parts[i];
      for (const std::string moment : {"adamw.m.", "adamw.v."}) {
        PieceInMemory held{piece_of(part, moment + part.serial.name)};
        CheckpointPiece& piece = held.piece;
        if (!store.has_state(moment + run)) {
          piece.last = piece.first;
        } else {
          const Slice state = store.state(moment + run);
          // Of the parameter's elements, the one whose moment lies first in the state.
          const std::int64_t first =
              (store.parameter("adamw." + run).offset - store.parameter(part.local.name).offset) / size;
          const std::int64_t count = piece.elements();
          piece.first = std::clamp(first, std::int64_t{0}, count);
          piece.last = std::clamp(first + state.spec.shape.size(), piece.first, count);
          held.data = store.state() + state.offset + (piece.first - first) * size;
        }
        pieces.push_back(std::move(held));
      }
    }
  }
}

}  // namespace

void CheckpointFlags::declare(Cli& cli) {
  cli.text("--save", save, "write parameters and moments here behind the last step, from any layout", "FILE");
  cli.text("--load", load,
           "go on behind the step at which this file was saved, in any layout; --steps counts from the "
           "beginning of the training, so give more than were done; --grains and --tensor-grains are the "
           "file's where not given",
           "FILE");
  cli.integer("--stop-after", stop_after,
              "stop (and save) behind this step, though schedules go over all --steps; 0: behind the last",
              {0});
  cli.integer("--check-replicas", check_replicas,
              "every so many steps, compare by hash what ranks hold in common; 0: never", {0});
}

std::map<std::string, Spec> checkpoint_tensors(std::span<const ParameterDescription> parameters, bool adamw) {
  std::map<std::string, Spec> tensors;
  for (const ParameterDescription& p : parameters) {
    tensors.emplace(p.name, p.spec());
    if (!adamw || !p.trainable) continue;
    for (const char* moment : {"adamw.m.", "adamw.v."}) tensors.emplace(moment + p.name, p.spec());
  }
  return tensors;
}

std::vector<PieceInMemory> held_pieces(const Training& training, bool adamw) {
  std::vector<PieceInMemory> pieces;
  const ParameterStore& store = training.store;
  for (const parallel::ParameterPart& part : training.parts)
    pieces.push_back(
        {piece_of(part, part.serial.name), store.values() + store.parameter(part.local.name).offset});
  if (adamw) add_moments(training, pieces);
  std::stable_sort(pieces.begin(), pieces.end(), [](const PieceInMemory& a, const PieceInMemory& b) {
    return a.piece.name < b.piece.name;
  });
  return pieces;
}

void save_checkpoint(const std::string& path, const std::string& flag, std::span<const PieceInMemory> pieces,
                     const std::map<std::string, std::string>& metadata, parallel::Communicator& world) {
  std::map<std::string, Spec> tensors;
  for (const PieceInMemory& held : pieces) tensors.emplace(held.piece.name, held.piece.serial);
  std::optional<NewFile> file;
  if (world.rank() == 0) {
    file.emplace(path, flag);
    const std::string head = safetensors_head(tensors, metadata);
    file->write(std::as_bytes(std::span(head)));
  }
  for (const std::span<const PieceInMemory> tensor : parallel::by_tensor(pieces))
    parallel::gather_serial(tensor, world, [&](std::span<const std::byte> bytes) { file->write(bytes); });
  if (file) file->commit();
  // Nobody says that it is saved before it is.
  world.barrier("save " + path);
}

void check_tensors(const SafetensorsFile& file, const std::map<std::string, Spec>& tensors) {
  const auto refuse = [&](const std::string& name, const std::string& reason) {
    throw DataError(fmt::format("{}: tensor '{}' {}; load it into the model and optimizer that saved it",
                                file.path(), name, reason));
  };
  const auto& stored = file.header().tensors;
  for (const auto& [name, spec] : tensors) {
    const auto found = stored.find(name);
    if (found == stored.end()) refuse(name, "is missing");
    if (found->second.spec != spec)
      refuse(name, fmt::format("is {} there and {} here", found->second.spec.to_string(), spec.to_string()));
  }
  for (const auto& [name, tensor] : stored)
    if (!tensors.contains(name)) refuse(name, "is none of this model and optimizer");
}

void load_checkpoint(const SafetensorsFile& file, std::span<const PieceInMemory> pieces) {
  for (const PieceInMemory& held : pieces) {
    const StoredTensor& tensor = file.tensor(held.piece.name);
    const auto size = static_cast<std::int64_t>(size_of(tensor.spec.dtype));
    held.piece.for_runs([&](std::int64_t at, std::int64_t whole, std::int64_t count) {
      file.read(tensor, whole, count, held.data + at * size);
    });
  }
}

}  // namespace graingrad::apps
