#include "nn/module.h"

#include "value/pattern.h"

namespace graingrad::nn {

std::string join(std::string_view parent, std::string_view child) {
  return parent.empty() ? std::string(child) : std::string(parent) + "." + std::string(child);
}

std::vector<ParameterDescription> Module::parameters() const {
  std::vector<ParameterDescription> all;
  for (const Descriptions* list : {&own_, &children_})
    for (const auto& description : *list) all.push_back(*description);
  return all;
}

std::vector<Value> Module::trainable_leaves(Graph& graph) const {
  std::vector<Value> leaves;
  for (const ParameterDescription& description : parameters())
    if (description.trainable) leaves.push_back(graph.parameter(description));
  return leaves;
}

void Module::add(std::string_view name, std::vector<Dim> dims, Initializer init, DType dtype) {
  own_.push_back(std::make_shared<ParameterDescription>(
      ParameterDescription{join(path_, name), std::move(dims), init, dtype, true}));
}

void Module::add(const Module& child) {
  for (const Descriptions* list : {&child.own_, &child.children_})
    children_.insert(children_.end(), list->begin(), list->end());
}

void Module::freeze(std::string_view pattern) {
  bool found = false;
  for (const Descriptions* list : {&own_, &children_})
    for (const auto& description : *list)
      if (matches(pattern, description->name)) {
        description->trainable = false;
        found = true;
      }
  if (!found)
    throw UsageError("no parameter is named '" + std::string(pattern) +
                     "'; use a name, or a pattern with *, as in h.0.*");
}

std::string_view Module::component() const {
  const std::size_t dot = path_.rfind('.');
  return dot == std::string::npos ? std::string_view(path_) : std::string_view(path_).substr(dot + 1);
}

}  // namespace graingrad::nn
