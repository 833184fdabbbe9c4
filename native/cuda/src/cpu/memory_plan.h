// The memory of a session on the CPU, from the same sizes that its calls take.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/block_task.h"
#include "secateur/backend.h"

namespace secateur::cpu {

struct SessionPlan {
  MemoryPlan memory;
  ProgressRoom progress;
};

// `room`: bytes that the session may take. Throws InvalidArgument as check_workload does.
SessionPlan plan_session(const Architecture& architecture, Precision precision, const Workload& workload, std::size_t threads,
                         std::uint64_t room);

}  // namespace secateur::cpu
