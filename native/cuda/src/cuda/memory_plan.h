// The memory of a session on a GPU, from the same sizes that its calls take.
#pragma once

#include "secateur/backend.h"

namespace secateur::gpu {

// Throws InvalidArgument as check_workload does.
MemoryPlan plan_session(const Architecture& architecture, Compute compute, const Workload& workload);

}  // namespace secateur::gpu
