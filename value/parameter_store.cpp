#include "value/parameter_store.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace graingrad {

void ParameterStore::must_be_open(std::string_view name) const {
  if (allocated_) throw UsageError("'" + std::string(name) + "' is declared after the store took its memory");
}

void ParameterStore::add(const ParameterDescription& description) {
  must_be_open(description.name);
  if (description.dtype != dtype_)
    throw UsageError("parameter '" + description.name + "' is " + std::string(name_of(description.dtype)) +
                     ", its store " + std::string(name_of(dtype_)));
  if (std::find(sums_.begin(), sums_.end(), description.name) != sums_.end())
    throw UsageError("a sum of the gradient block is named '" + description.name + "' already");
  const Spec spec = description.spec();
  if (!value_slices_.try_emplace(description.name, Slice{value_elements_ * element_bytes(), spec}).second)
    throw UsageError("two parameters are named '" + description.name + "'");
  value_elements_ += spec.shape.size();
  if (description.trainable) {
    gradient_slices_.emplace(description.name, Slice{gradient_elements_ * element_bytes(), spec});
    gradient_elements_ += spec.shape.size();
  }
  parameters_.push_back(description);
}

void ParameterStore::add_range(std::string_view name, std::size_t first, std::size_t count,
                               std::optional<Piece> part) {
  must_be_open(name);
  const auto refuse = [&](const std::string& reason) {
    throw UsageError("range '" + std::string(name) + "': " + reason);
  };
  if (count == 0 || first > parameters_.size() || count > parameters_.size() - first)
    refuse("no parameters [" + std::to_string(first) + ", " + std::to_string(first + count) + ")");
  std::int64_t elements = 0;
  for (std::size_t i = first; i < first + count; ++i) {
    if (!parameters_[i].trainable) refuse("'" + parameters_[i].name + "' is frozen");
    elements += parameters_[i].spec().shape.size();
  }
  if (value_slices_.contains(name) || std::find(sums_.begin(), sums_.end(), name) != sums_.end())
    refuse("the name is in use");
  const Piece own = part.value_or(Piece{0, elements});
  if (own.first < 0 || own.last < own.first || own.last > elements)
    refuse("elements [" + std::to_string(own.first) + ", " + std::to_string(own.last) + ") of " +
           std::to_string(elements));
  const Spec flat{dtype_, {own.last - own.first}};
  const std::string& from = parameters_[first].name;
  const std::int64_t skipped = own.first * element_bytes();
  value_slices_.emplace(name, Slice{parameter(from).offset + skipped, flat});
  gradient_slices_.emplace(name, Slice{gradient(from).offset + skipped, flat});
}

void ParameterStore::add_sum(std::string_view name) {
  must_be_open(name);
  if (gradient_slices_.contains(name) || std::find(sums_.begin(), sums_.end(), name) != sums_.end())
    throw UsageError("two slices of the gradient block are named '" + std::string(name) + "'");
  sums_.emplace_back(name);
}

void ParameterStore::add_state(std::string_view name, const Spec& spec) {
  must_be_open(name);
  const auto bytes = static_cast<std::int64_t>(aligned(static_cast<std::size_t>(spec.bytes())));
  if (!states_.try_emplace(std::string(name), Slice{state_bytes_, spec}).second)
    throw UsageError("two states are named '" + std::string(name) + "'");
  state_bytes_ += bytes;
}

void ParameterStore::add_register(std::string_view name, DType dtype) {
  must_be_open(name);
  const auto offset = static_cast<std::int64_t>(registers_.size()) * 8;
  if (!registers_.try_emplace(std::string(name), Slice{offset, {dtype, {}}}).second)
    throw UsageError("two registers are named '" + std::string(name) + "'");
}

std::vector<std::size_t> ParameterStore::name_order() const {
  std::vector<std::size_t> order(parameters_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return parameters_[a].name < parameters_[b].name; });
  return order;
}

std::vector<ParameterStore::Run> ParameterStore::trainable_runs() const {
  std::vector<Run> runs;
  std::int64_t value = 0, gradient = 0;
  bool open = false;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const std::int64_t elements = parameters_[i].spec().shape.size();
    if (parameters_[i].trainable) {
      if (!open) runs.push_back({i, 0, value, gradient, 0});
      ++runs.back().count;
      runs.back().elements += elements;
      gradient += elements;
    }
    open = parameters_[i].trainable;
    value += elements;
  }
  return runs;
}

Slice ParameterStore::find(const Slices& slices, std::string_view name, std::string_view kind) const {
  const auto it = slices.find(name);
  if (it == slices.end())
    throw UsageError("the store has no " + std::string(kind) + " '" + std::string(name) + "'");
  return it->second;
}

Slice ParameterStore::parameter(std::string_view name) const {
  return find(value_slices_, name, "parameter");
}

Slice ParameterStore::gradient(std::string_view name) const {
  const auto sum = std::find(sums_.begin(), sums_.end(), name);
  if (sum != sums_.end())
    return {(gradient_elements_ + (sum - sums_.begin())) * element_bytes(), {dtype_, {}}};
  return find(gradient_slices_, name, "gradient of a trainable parameter");
}

Slice ParameterStore::state(std::string_view name) const { return find(states_, name, "state"); }

Slice ParameterStore::register_value(std::string_view name) const {
  return find(registers_, name, "register");
}

void ParameterStore::allocate(int gradient_blocks) {
  values_ = AlignedBuffer(static_cast<std::size_t>(parameter_bytes()));
  state_ = AlignedBuffer(static_cast<std::size_t>(state_bytes()));
  if (state_.bytes() > 0) std::memset(state_.data(), 0, state_.bytes());
  gradients_.clear();
  for (int i = 0; i < gradient_blocks; ++i)
    gradients_.emplace_back(static_cast<std::size_t>(gradient_bytes()));
  allocated_ = true;
}

std::int64_t ParameterStore::allocated_bytes() const {
  std::size_t bytes = values_.bytes() + state_.bytes();
  for (const AlignedBuffer& block : gradients_) bytes += block.bytes();
  return static_cast<std::int64_t>(bytes);
}

}  // namespace graingrad
