// One micro-batch of a serial graph on one rank of a mesh: partitioned, differentiated, compiled, run.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/init.h"
#include "parallel/coalesce.h"
#include "parallel/collectives.h"
#include "parallel/partition.h"
#include "tests/value/replay.h"
#include "value/compile.h"
#include "value/gradient.h"
#include "value/ops/random.h"

namespace graingrad::parallel {

/// The first of `outputs` is the loss, which is differentiated; the others are kept to be looked at.
struct PartitionedRun {
  PartitionedRun(const Graph& serial, std::span<const Value> outputs,
                 std::span<const ParameterDescription> parameters, DType dtype, const Layout& layout,
                 const Mesh& mesh, int rank, std::int64_t grains, bool coalesce = true,
                 CompileOptions options = {})
      : parts(place_parameters(parameters, layout, mesh, rank, grains)),
        store(dtype),
        backend(with_collectives(cpu_backend())) {
    for (const ParameterPart& part : parts) store.add(part.local);
    store.add_sum("loss");
    for (const std::string_view name : {kSeedRegister, kStepRegister, kMicroBatchRegister})
      store.add_register(name, DType::i32);
    Partitioned cut = partition(serial, outputs, parts, layout, mesh, rank, grains);
    gathered = cut.gathered;
    cut.graph->accumulate("loss", cut.outputs[0]);
    options.backward_from = static_cast<NodeId>(cut.graph->size());
    std::vector<Value> leaves;
    for (const ParameterPart& part : parts)
      if (part.local.trainable) leaves.push_back(cut.graph->parameter(part.local));
    unreached = accumulate_gradients(cut.outputs[0], cut.graph->constant(0.375, dtype), leaves);
    std::vector<OutputRef> kept;
    for (const Value& value : std::span(cut.outputs).subspan(1)) kept.push_back(cut.graph->check(value));
    graph = std::move(cut.graph);
    if (coalesce && mesh.extent(Axis::tensor) > 1) {
      Rewritten joined = coalesce_sums(*graph, options.backward_from, kept);
      if (joined.graph != nullptr) {
        graph = std::move(joined.graph);
        kept = joined.outputs;
        options.backward_from = joined.backward_from;
      }
    }
    backward_from = options.backward_from;
    std::vector<Value> looked_at;
    for (const OutputRef& ref : kept) looked_at.push_back(graph->handle(ref));
    program = compile(*graph, looked_at, &store, backend, options);
  }

  /// Runs it `times` times into one gradient block, so that chains go on in their sinks; `load` writes the
  /// inputs of each; `companion` goes on beside each phase.
  template <class F>
  void run(Collectives* collectives, int times, const F& load, const cpu::Team& team = {},
           cpu::Companion* companion = nullptr) {
    store.allocate(1);
    for (const ParameterPart& part : parts) {
      const std::uint64_t stream = nn::stream_of(part.serial.name);
      visit_floating(store.dtype(), [&](auto zero) {
        using T = decltype(zero);
        const std::span<T> numbers = store.values_of<T>(part.local.name);
        for (std::size_t i = 0; i < numbers.size(); ++i) {
          const auto at = static_cast<std::uint64_t>(part.serial_index(static_cast<std::int64_t>(i)));
          numbers[i] = static_cast<T>(0.4 * nn::normal(7, stream, at));
        }
      });
    }
    std::memset(store.gradients(0), 0, static_cast<std::size_t>(store.gradient_bytes()));
    Workspace workspace({&program}, store, team, collectives);
    workspace.poison(std::byte{0x7B});
    workspace.set_register(kSeedRegister, 3);
    workspace.set_register(kStepRegister, 5);
    for (int i = 0; i < times; ++i) {
      load(workspace, program, i);
      workspace.run(program, Phase::forward, 0, companion);
      workspace.run(program, Phase::backward, 0, companion);
    }
    values.clear();
    for (std::size_t i = 0; i < program.outputs.size(); ++i)
      values.push_back(output_bytes(workspace, program, i));
  }
  void run(Collectives* collectives, int times) {
    run(collectives, times, [](Workspace&, const Program&, int) {});
  }

  std::vector<ParameterPart> parts;
  ParameterStore store;
  Backend backend;
  std::unique_ptr<Graph> graph;
  NodeId backward_from = 0;  ///< the first node of the backward phase, before compile
  Program program;
  std::vector<std::string> gathered, unreached;
  std::vector<Bytes> values;  ///< of the outputs behind the loss, after the last run
};

/// Empty, or the first of loss, outputs and gradients in which `cut` differs from `serial` in any bit.
inline std::string difference(const PartitionedRun& serial, const PartitionedRun& cut) {
  const auto size = static_cast<std::int64_t>(size_of(serial.store.dtype()));
  const auto at = [&](const ParameterStore& store, const std::string& name, std::int64_t element) {
    return store.gradients(0) + store.gradient(name).offset + element * size;
  };
  const auto bytes = static_cast<std::size_t>(size);
  if (std::memcmp(at(serial.store, "loss", 0), at(cut.store, "loss", 0), bytes) != 0) return "loss";
  for (std::size_t i = 0; i < serial.values.size(); ++i)
    if (serial.values[i] != cut.values[i]) return "output " + std::to_string(i + 1);
  for (const ParameterPart& part : cut.parts) {
    if (!part.local.trainable) continue;
    bool same = true;
    part.for_runs([&](std::int64_t local, std::int64_t whole, std::int64_t count) {
      same = same &&
             std::memcmp(at(cut.store, part.local.name, local), at(serial.store, part.serial.name, whole),
                         static_cast<std::size_t>(count * size)) == 0;
    });
    if (!same) return part.local.name;
  }
  return "";
}

/// What the wire will carry in one replay, and how often each collective runs.
struct Messages {
  Traffic traffic;
  std::map<std::string, int> forward, backward;
};
inline Messages messages_of(const Program& program) {
  Messages messages;
  for (const PlannedCollective& c : collectives_of(program)) {
    messages.traffic += c.traffic;
    ++(c.phase == Phase::forward ? messages.forward : messages.backward)[std::string(c.op->name)];
  }
  return messages;
}

}  // namespace graingrad::parallel
