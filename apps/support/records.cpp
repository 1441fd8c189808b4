#include "apps/support/records.h"

#include <nlohmann/json.hpp>

#include "apps/support/build_info.h"

namespace graingrad::apps {
namespace {

// Members keep the order in which they were added.
using Json = nlohmann::ordered_json;

Json to_json(const PlanBytes& plan) {
  return {{"parameters", plan.parameters},   {"gradients", plan.gradients},         {"state", plan.state},
          {"activations", plan.activations}, {"communication", plan.communication}, {"peak", plan.peak}};
}

// What a plan and a final record begin with.
template <class Record>
Json heading(std::string_view event, const Record& record) {
  return {
      {"event", event},
      {"program", record.program},
      {"commit", commit()},
      {"mesh",
       {{"data", record.data_ranks}, {"tensor", record.tensor_ranks}, {"pipeline", record.pipeline_ranks}}},
      {"threads", record.threads},
      {"workers", record.workers},
      {"micro_batch", record.micro_batch},
      {"global_batch", record.global_batch},
      {"grains", record.grains}};
}

}  // namespace

std::string in_quotes(std::string_view text) { return Json(std::string(text)).dump(); }

std::string config_line(const std::string& toml) { return Json{{"event", "config"}, {"toml", toml}}.dump(); }

std::string line_of(const StepRecord& record) {
  Json seconds = Json::object();
  for (std::size_t i = 0; i < kPhases; ++i) seconds[std::string(kPhaseNames[i])] = record.seconds.seconds[i];
  const Json json = {
      {"event", "step"},           {"step", record.step},
      {"tokens", record.tokens},   {"loss", record.loss},
      {"lr", record.lr},           {"grad_norm", record.grad_norm ? Json(*record.grad_norm) : Json(nullptr)},
      {"skipped", record.skipped}, {"seconds", seconds}};
  return json.dump();
}

std::string line_of(const PlanRecord& record) {
  Json json = heading("plan", record);
  json.update({{"tensor_grains", record.tensor_grains},
               {"layout", record.layout},
               {"zero", record.zero},
               {"attention", record.attention},
               {"nodes", record.nodes},
               {"parameters", record.parameters},
               {"flops_per_step", record.flops_per_step},
               {"fullest_rank", record.fullest_rank},
               {"plan_bytes", to_json(record.plan_bytes)}});
  return json.dump();
}

std::string line_of(const FinalRecord& record) {
  // Reading data is no part of the final record's split.
  Json phases = Json::object();
  for (const Phase phase :
       {Phase::forward, Phase::backward, Phase::communicate, Phase::wait, Phase::update}) {
    const auto i = static_cast<std::size_t>(phase);
    const Spread& spread = record.phase_seconds[i];
    phases[std::string(kPhaseNames[i])] = {{"min", spread.min},
                                           {"median", spread.median},
                                           {"max", spread.max},
                                           {"slowest_rank", spread.slowest_rank}};
  }
  const Quartiles& rate = record.tokens_per_second;
  Json json = heading("final", record);
  json.update(
      {{"order", record.order},
       {"reduce", record.reduce},
       {"steps", record.steps},
       {"loss_first", record.loss_first},
       {"loss", record.loss},
       {"tokens_per_second", {{"median", rate.median}, {"q1", rate.q1}, {"q3", rate.q3}}},
       {"phase_seconds", phases},
       {"plan_bytes", to_json(record.plan_bytes)},
       {"used_bytes", record.used_bytes},
       {"rss_bytes", record.rss_bytes},
       {"base_rss_bytes", record.base_rss_bytes},
       {"communication", {{"calls", record.communication_calls}, {"bytes", record.communication_bytes}}},
       {"flops_per_step", record.flops_per_step},
       {"gflops", record.gflops},
       {"gemm_gflops", record.gemm_gflops},
       {"work_per_thread", record.work_per_thread},
       {"nodes", record.nodes},
       {"parameters", record.parameters},
       {"tensor_grains", record.tensor_grains},
       {"layout", record.layout},
       {"zero", record.zero},
       {"isa", record.isa},
       {"device", record.device},
       {"seed", record.seed},
       {"data", {{"path", record.data_path}, {"bytes", record.data_bytes}}},
       {"hash", record.hash}});
  for (const auto& [key, value] : record.extra)
    std::visit([&json, &name = key](const auto& x) { json[name] = x; }, value);
  return json.dump();
}

}  // namespace graingrad::apps
