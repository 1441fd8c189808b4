#include "apps/support/parts.h"

#include <algorithm>
#include <cstring>

#include "nn/init.h"

namespace graingrad::apps {

void initialize_parts(ParameterStore& store, std::span<const parallel::ParameterPart> parts,
                      std::uint64_t seed) {
  visit_floating(store.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for (const parallel::ParameterPart& part : parts) {
      const Initializer& init = part.serial.init;
      const std::span<T> values = store.values_of<T>(part.local.name);
      if (init.kind != Initializer::Kind::normal) {
        std::fill(values.begin(), values.end(), init.kind == Initializer::Kind::ones ? T(1) : T(0));
        continue;
      }
      const std::uint64_t stream = nn::stream_of(part.serial.name);
      part.for_runs([&](std::int64_t local, std::int64_t serial, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i)
          values[static_cast<std::size_t>(local + i)] =
              static_cast<T>(init.scale * nn::normal(seed, stream, static_cast<std::uint64_t>(serial + i)));
      });
    }
  });
}

std::span<const std::byte> gather_parameter(const parallel::ParameterPart& part,
                                            std::span<const std::byte> own, std::vector<std::byte>& serial,
                                            parallel::Communicator& tensor) {
  const bool first = tensor.rank() == 0;
  if (part.dim < 0) return first ? own : std::span<const std::byte>();
  const auto size = static_cast<std::int64_t>(size_of(part.serial.dtype));
  std::vector<parallel::ParameterPart> parts(static_cast<std::size_t>(tensor.size()), part);
  std::vector<std::int64_t> counts;
  for (int r = 0; r < tensor.size(); ++r) {
    auto& other = parts[static_cast<std::size_t>(r)];
    other.rank = r;
    other.local.dims[static_cast<std::size_t>(part.dim)].extent =
        part.bounds[static_cast<std::size_t>(r + 1)] - part.bounds[static_cast<std::size_t>(r)];
    counts.push_back(other.local.spec().bytes());
  }
  std::vector<std::byte> arrived(first ? static_cast<std::size_t>(part.serial.spec().bytes()) : 0);
  tensor.gather(own, std::span(arrived), counts, 0, "gather " + part.serial.name);
  if (!first) return {};
  serial.resize(arrived.size());
  const std::byte* from = arrived.data();
  for (const parallel::ParameterPart& other : parts) {
    other.for_runs([&](std::int64_t local, std::int64_t whole, std::int64_t count) {
      std::memcpy(serial.data() + whole * size, from + local * size, static_cast<std::size_t>(count * size));
    });
    from += other.local.spec().bytes();
  }
  return serial;
}

}  // namespace graingrad::apps
