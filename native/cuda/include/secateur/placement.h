// Which processors the engine's threads run on, and where their memory is.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace secateur {

struct Placement {
  // One per thread, in the threads' order; empty: the system chooses.
  std::vector<std::size_t> processors;
  // NUMA node whose memory is taken first; without it, that of the processor that touches memory first.
  std::optional<std::size_t> memory_node;
};

// Binds the calling thread, which is that thread of the engine. Throws InvalidArgument when the placement has no processor for it, and
// FailedPrecondition when the system refuses.
void settle_thread(const Placement& placement, std::size_t thread);

}  // namespace secateur
