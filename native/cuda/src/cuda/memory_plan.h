// The memory of a session on a GPU, from the same sizes that its calls take.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/hidden_states.h"
#include "secateur/backend.h"

namespace secateur::gpu {

struct SessionPlan {
  // Whether any blocks are computed.
  bool runs_blocks() const noexcept { return samples_per_group > 0; }

  MemoryPlan memory;
  // Of the host's memory that is planned.
  std::uint64_t pinned_bytes;
  GroupPlaces groups;
  std::size_t samples_per_group;
  std::size_t sequence_length;
  // The hidden states of the dense model are kept in the same places once more.
  bool dense_targets;
};

// For a device that has so many bytes left: where the hidden states of all groups do not fit, as many stay on it as do. Threads: of the
// host. Throws InvalidArgument as check_workload does.
SessionPlan plan_session(const Architecture& architecture, Precision precision, const Workload& workload, std::uint64_t available_bytes,
                         std::size_t threads);

}  // namespace secateur::gpu
