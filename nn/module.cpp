#include "nn/module.h"

namespace graingrad::nn {

std::string join(std::string_view parent, std::string_view child) {
  return parent.empty() ? std::string(child) : std::string(parent) + "." + std::string(child);
}

std::vector<ParameterDescription> Module::parameters() const {
  std::vector<ParameterDescription> all = own_;
  all.insert(all.end(), children_.begin(), children_.end());
  return all;
}

void Module::add(std::string_view name, std::vector<Dim> dims, Initializer init, DType dtype) {
  own_.push_back({join(path_, name), std::move(dims), init, dtype, true});
}

void Module::add(const Module& child) {
  const std::vector<ParameterDescription> parameters = child.parameters();
  children_.insert(children_.end(), parameters.begin(), parameters.end());
}

std::string_view Module::component() const {
  const std::size_t dot = path_.rfind('.');
  return dot == std::string::npos ? std::string_view(path_) : std::string_view(path_).substr(dot + 1);
}

}  // namespace graingrad::nn
