// The memory of a session on the CPU, from the same sizes that its calls take.
#pragma once

#include <cstddef>

#include "secateur/backend.h"

namespace secateur::cpu {

// Throws InvalidArgument as check_workload does.
MemoryPlan plan_session(const Architecture& architecture, Precision precision, const Workload& workload, std::size_t threads);

}  // namespace secateur::cpu
