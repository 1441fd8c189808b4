#include "apps/support/weight_hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <new>

#include "value/error.h"

namespace graingrad::apps {

std::string weight_hash(std::vector<NamedBytes> parameters) {
  const auto by_name = [](const NamedBytes& a, const NamedBytes& b) { return a.name < b.name; };
  std::sort(parameters.begin(), parameters.end(), by_name);
  for (std::size_t i = 1; i < parameters.size(); ++i)
    if (parameters[i].name == parameters[i - 1].name)
      throw UsageError(fmt::format("parameter {} is given twice; hash each name once", parameters[i].name));
  WeightHash hash;
  for (const NamedBytes& parameter : parameters) hash.add(parameter.bytes);
  return hash.text();
}

struct WeightHash::State {
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> xxh{XXH3_createState(), XXH3_freeState};
};

WeightHash::WeightHash() : state_(std::make_unique<State>()) {
  if (state_->xxh == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_->xxh.get());
}
WeightHash::~WeightHash() = default;

void WeightHash::add(std::span<const std::byte> parameter) {
  if (!parameter.empty()) XXH3_128bits_update(state_->xxh.get(), parameter.data(), parameter.size());
}

std::string WeightHash::text() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh.get());
  return fmt::format("xxh3:{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace graingrad::apps
