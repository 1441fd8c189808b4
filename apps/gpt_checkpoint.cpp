#include "apps/gpt_checkpoint.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

namespace graingrad::apps {
namespace {

constexpr const char* kFormat = "graingrad training, version 1";
constexpr const char* kGrains = "grains";
constexpr const char* kTensorGrains = "tensor-grains";

using Texts = std::map<std::string, std::string>;

// What makes the model. Tensors do not show all of it (how many heads a width has).
Texts model_options(const GptOptions& o) {
  const auto text = [](const auto& value) { return fmt::format("{}", value); };
  return {{"model", o.model},        {"layers", text(o.layers)},     {"heads", text(o.heads)},
          {"width", text(o.width)},  {"sequence", text(o.sequence)}, {"vocab", text(o.vocab)},
          {"untie", text(o.untie)},  {"activation", o.activation},   {"dtype", o.dtype},
          {"optimizer", o.optimizer}};
}

// What a run may change on purpose, and what then changes the bits of its steps.
Texts step_options(const GptOptions& o) {
  const auto text = [](const auto& value) { return fmt::format("{}", value); };
  Texts texts = {{"seed", text(o.common.seed)},
                 {"reduce", o.common.reduce},
                 {"micro-batch", text(o.micro_batch)},
                 {"global-batch", text(o.global_batch)},
                 {"attention", o.attention},
                 {"dropout", text(o.dropout)},
                 {"freeze", o.freeze},
                 {"lr", text(o.lr)},
                 {"lr-schedule", o.lr_schedule},
                 {"warmup", text(o.warmup)},
                 {"clip-grad", text(o.clip_grad)}};
  if (o.lr_schedule != "constant") {
    texts["steps"] = text(o.steps);
    texts["min-lr"] = text(o.min_lr);
  }
  if (o.adamw()) {
    texts["beta1"] = text(o.beta1);
    texts["beta2"] = text(o.beta2);
    texts["epsilon"] = text(o.epsilon);
    texts["weight-decay"] = text(o.weight_decay);
  }
  return texts;
}

std::string text_of(const SafetensorsFile& file, const std::string& key) {
  const Texts& metadata = file.header().metadata;
  const auto found = metadata.find(key);
  if (found == metadata.end())
    throw DataError(
        fmt::format("{}: its metadata have no '{}'; give a file that --save has written", file.path(), key));
  return found->second;
}

std::int64_t number_of(const SafetensorsFile& file, const std::string& key, std::int64_t least,
                       std::int64_t most) {
  const std::string text = text_of(file, key);
  std::int64_t number = -1;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || rest != text.data() + text.size() || number < least || number > most)
    throw DataError(fmt::format("{}: '{}' is no {} in its metadata; give a file that --save has written",
                                file.path(), text, key));
  return number;
}

}  // namespace

Texts checkpoint_metadata(const GptOptions& o, const Training& training, std::int64_t step) {
  Texts texts = model_options(o);
  texts.merge(step_options(o));
  texts["format"] = kFormat;
  texts["step"] = fmt::format("{}", step);
  texts[kGrains] = fmt::format("{}", training.shape.summation.grains);
  texts["order"] = parallel::name_of(training.shape.summation.order);
  texts[kTensorGrains] = fmt::format("{}", training.tensor_grains);
  return texts;
}

Beginning beginning_of(GptOptions& o, const Cli& cli) {
  Beginning beginning;
  if (o.checkpoint.load.empty()) return beginning;
  const SafetensorsFile& file = beginning.file.emplace(o.checkpoint.load);
  check_tensors(file, checkpoint_tensors(nn::Gpt(o.config()).parameters(), o.adamw()));
  if (const std::string format = text_of(file, "format"); format != kFormat)
    throw DataError(fmt::format("{}: is of the format '{}', not '{}'; give a file that --save has written",
                                file.path(), format, kFormat));
  for (const auto& [option, here] : model_options(o))
    if (const std::string there = text_of(file, option); there != here)
      throw DataError(fmt::format("{}: was saved with --{} {}, this run has {}; give that one", file.path(),
                                  option, there, here));
  beginning.step = number_of(file, "step", 0, std::int64_t{1} << 60);
  if (beginning.step >= o.last_step())
    throw UsageError(
        fmt::format("{}: {} steps are done and the run ends behind step {}; --steps and --stop-after count "
                    "from the training's beginning, give more",
                    file.path(), beginning.step, o.last_step()));
  const auto take = [&](const char* key, std::int64_t& option, std::int64_t most) {
    const std::int64_t there = number_of(file, key, 1, most);
    if (!cli.given(std::string("--") + key) || option == 0) option = there;
    if (option != there)
      beginning.differences.push_back(fmt::format("--{} is {} and was {}", key, option, there));
  };
  take(kGrains, o.common.grains, std::int64_t{1} << 30);
  take(kTensorGrains, o.tensor_grains, 256);
  for (const auto& [option, here] : step_options(o)) {
    const auto there = file.header().metadata.find(option);
    const std::string before = there == file.header().metadata.end() ? "not set" : there->second;
    if (before != here)
      beginning.differences.push_back(fmt::format("--{} is '{}' and was '{}'", option, here, before));
  }
  return beginning;
}

}  // namespace graingrad::apps
