// Masks bettered by swaps: a dropped weight comes back for a kept one of its row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/repair/swap_row.h"
#include "secateur/call_context.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

std::uint64_t swap_bytes(std::size_t columns, std::size_t threads);

// Every row is swapped for as long as its damped output error over the fitting samples falls; of its swaps those up to the least error over
// the held-out samples, which is not damped, are kept. So neither error of a row grows, and its count stays. Returns the swaps of all rows.
std::uint64_t swap_weights(const SwapTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

}  // namespace secateur::cpu
