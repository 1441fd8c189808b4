// What gpt_attention says in a checkpoint beside the tensors, and how a run goes on from one.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "apps/gpt_model.h"
#include "apps/support/safetensors.h"

namespace graingrad::apps {

/// The options that decide the model and the bits of its steps, by their flags' names, and the steps done: a
/// pure function of the training, whatever its layout.
std::map<std::string, std::string> checkpoint_metadata(const GptOptions& options, const Training& training,
                                                       std::int64_t step);

/// Where a run begins.
struct Beginning {
  std::optional<SafetensorsFile> file;  ///< --load
  std::int64_t step = 0;                ///< steps done before
  /// What differs from the run that saved it and changes the bits of the steps, one line each.
  std::vector<std::string> differences;
};

/// Opens --load and checks that it fits; where --grains or --tensor-grains are not given, `options` get the
/// file's, since the bits depend on them. After settle(). Throws DataError for a file that is damaged, or of
/// another model, naming tensor or option; UsageError where it has done all of the run's steps.
Beginning beginning_of(GptOptions& options, const Cli& cli);

}  // namespace graingrad::apps
