// A training's state as one safetensors file: the serial parameters and AdamW's moments, the same bytes from
// every layout.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "apps/support/cli.h"
#include "apps/support/safetensors.h"
#include "apps/support/training.h"
#include "parallel/checkpoint.h"

namespace graingrad::apps {

/// Flags of programs that save, continue, and compare their ranks.
struct CheckpointFlags {
  std::string save, load;  ///< files; "": none
  std::int64_t stop_after = 0, check_replicas = 0;

  void declare(Cli& cli);
};

/// The tensors of a checkpoint: each parameter under its name, and of each trainable one with AdamW the
/// moments "adamw.m.NAME" and "adamw.v.NAME".
std::map<std::string, Spec> checkpoint_tensors(std::span<const ParameterDescription> parameters, bool adamw);

/// This rank's pieces of all of them, in byte-wise order of names. The store is allocated, and outlives them.
std::vector<parallel::PieceInMemory> held_pieces(const Training& training, bool adamw);

/// Writes all tensors to `path`, with `metadata`, through rank 0 (parallel/checkpoint.h says what memory that
/// takes); `flag` is what named the file. Collective. Throws IoError, and leaves what stood at `path`.
void save_checkpoint(const std::string& path, const std::string& flag,
                     std::span<const parallel::PieceInMemory> pieces,
                     const std::map<std::string, std::string>& metadata, parallel::Communicator& world);

/// Throws DataError naming the first tensor that the file lacks, has in another shape or dtype, or has beside
/// `tensors`.
void check_tensors(const SafetensorsFile& file, const std::map<std::string, Spec>& tensors);

/// Reads this rank's pieces straight into their places; takes no memory. Throws what SafetensorsFile throws.
void load_checkpoint(const SafetensorsFile& file, std::span<const parallel::PieceInMemory> pieces);

}  // namespace graingrad::apps
