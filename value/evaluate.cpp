#include "value/evaluate.h"

#include "value/compile.h"
#include "value/graph.h"
#include "value/ops/leaf.h"
#include "value/workspace.h"

namespace graingrad {
namespace {

void fill(Workspace& workspace, const Program& program, const std::string& name,
          const std::vector<double>& numbers) {
  const Spec& spec = program.input_specs.at(name);
  if (static_cast<std::int64_t>(numbers.size()) != spec.shape.size())
    throw ShapeError("evaluate: input '" + name + "' is " + spec.to_string() + " and got " +
                     std::to_string(numbers.size()) + " numbers");
  const auto copy = [&]<class T>(std::span<T> to) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<T>(numbers[i]);
  };
  if (spec.dtype == DType::f32) copy(workspace.input<float>(program, name));
  if (spec.dtype == DType::f64) copy(workspace.input<double>(program, name));
  if (spec.dtype == DType::i32) copy(workspace.input<std::int32_t>(program, name));
}

template <class T>
std::vector<double> read(const Workspace& workspace, const Program& program, std::size_t i) {
  const auto numbers = workspace.output<T>(program, i);
  return {numbers.begin(), numbers.end()};
}

}  // namespace

std::vector<std::vector<double>> evaluate(std::span<const Value> values, const EvaluateOptions& options) {
  if (values.empty()) return {};
  ParameterStore registers(DType::f32);
  if (options.store == nullptr)
    for (NodeId id = 0; id < values[0].graph().size(); ++id) {
      const Graph& graph = values[0].graph();
      if (&graph.op(id) == &ops::register_value && options.registers.contains(graph.attributes(id).name))
        registers.add_register(graph.attributes(id).name, graph.spec({id, 0}).dtype);
    }
  ParameterStore& store = options.store != nullptr ? *options.store : registers;
  CompileOptions compile_options;
  compile_options.effects = false;
  const Program program = compile(values[0].graph(), values, &store, cpu_backend(), compile_options);
  Workspace workspace({&program}, store, {options.threads, cpu::Schedule::fixed});
  for (const auto& [name, spec] : program.input_specs) {
    const auto it = options.inputs.find(name);
    if (it == options.inputs.end()) throw UsageError("evaluate: no numbers for input '" + name + "'");
    fill(workspace, program, name, it->second);
  }
  for (const auto& [name, number] : options.registers) workspace.set_register(name, number);
  workspace.run(program, Phase::forward);
  std::vector<std::vector<double>> result;
  for (std::size_t i = 0; i < values.size(); ++i) {
    switch (program.output_specs[i].dtype) {
      case DType::f32:
        result.push_back(read<float>(workspace, program, i));
        break;
      case DType::f64:
        result.push_back(read<double>(workspace, program, i));
        break;
      case DType::i32:
        result.push_back(read<std::int32_t>(workspace, program, i));
        break;
      case DType::bf16:
        throw ShapeError("evaluate: bf16 has no kernels yet");
    }
  }
  return result;
}

std::vector<std::vector<double>> evaluate(std::initializer_list<Value> values,
                                          const EvaluateOptions& options) {
  return evaluate(std::span(values.begin(), values.size()), options);
}

}  // namespace graingrad
