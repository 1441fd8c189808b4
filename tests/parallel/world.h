// What every MPI test needs: the communicators under test. Defined by the main function that starts MPI.
#pragma once

#include "parallel/communicator.h"
#include "value/ops/collective.h"

/// All ranks of the test job. Lives until main returns.
graingrad::parallel::Communicator& test_world();

/// The same ranks with messages split at 24 bytes, so that splitting is tested without 2 GiB.
graingrad::parallel::Communicator& test_world_in_small_messages();

/// All ranks as one group that cuts tensors.
inline graingrad::RankGroup all_ranks() { return {"tensor", test_world().size(), test_world().rank()}; }
