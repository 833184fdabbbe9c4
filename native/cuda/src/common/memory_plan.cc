#include "secateur/memory_plan.h"

#include <numeric>
#include <utility>

namespace secateur {

namespace {

std::uint64_t sum(const std::vector<MemoryItem>& items) noexcept {
  return std::accumulate(items.begin(), items.end(), std::uint64_t{0},
                         [](std::uint64_t bytes, const MemoryItem& item) { return bytes + item.bytes; });
}

}  // namespace

std::uint64_t MemoryPlan::bytes() const noexcept { return sum(items); }

void PeakStep::consider(const std::string& step, std::vector<MemoryItem> items) {
  if (!peak_.items.empty() && sum(items) <= peak_.bytes()) return;
  peak_.step = step;
  peak_.items = std::move(items);
}

std::uint64_t left_bytes(const MemoryBudget& budget) noexcept {
  const std::uint64_t used = budget.used_bytes();
  return budget.limit_bytes() > used ? budget.limit_bytes() - used : 0;
}

void require_room(const MemoryPlan& plan, const MemoryBudget& budget) {
  const std::uint64_t available = left_bytes(budget);
  if (plan.bytes() <= available) return;
  std::string parts;
  for (const MemoryItem& item : plan.items) {
    parts += (parts.empty() ? "" : ", ") + item.purpose + " " + std::to_string(item.bytes);
  }
  throw OutOfMemory("The job needs " + std::to_string(plan.bytes()) + " bytes here in its step " + plan.step + " (" + parts + "); " +
                        std::to_string(available) + " of the memory budget of " + std::to_string(budget.limit_bytes()) +
                        " are left. Use more nodes, fewer samples or a larger --memory.",
                    plan.bytes(), available);
}

}  // namespace secateur
