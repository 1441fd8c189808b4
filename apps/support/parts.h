// Parts of parameters in a program's hands: their first values, and the serial parameter from all parts.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/placement.h"
#include "value/parameter_store.h"

namespace graingrad::apps {

/// As nn::initialize, of parts: each element's number is that of its place in the serial parameter.
void initialize_parts(ParameterStore& store, std::span<const parallel::ParameterPart> parts,
                      std::uint64_t seed);

/// The bytes of the serial parameter from every rank's part `own`, on the group's first rank (empty on the
/// others); `serial` is where they lie. What is whole is not sent. Collective over the tensor axis.
std::span<const std::byte> gather_parameter(const parallel::ParameterPart& part,
                                            std::span<const std::byte> own, std::vector<std::byte>& serial,
                                            parallel::Communicator& tensor);

}  // namespace graingrad::apps
