// How much memory a job will take on a node, told before anything is loaded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "secateur/memory_budget.h"

namespace secateur {

struct MemoryItem {
  std::string purpose;
  std::uint64_t bytes = 0;
};

// Peak of a session's memory.
struct MemoryPlan {
  // What takes the most, such as `allocate`.
  std::string step;
  // Held then, counted by the budget.
  std::vector<MemoryItem> items;
  // Memory of the host beside that of a device: pinned, or of what is computed there; not counted by the budget.
  std::vector<MemoryItem> pinned;

  // Of the items.
  std::uint64_t bytes() const noexcept;
};

// The step of a job that takes the most memory; the first of equals.
class PeakStep {
 public:
  void consider(const std::string& step, std::vector<MemoryItem> items);
  MemoryPlan take() && { return std::move(peak_); }

 private:
  MemoryPlan peak_;
};

std::uint64_t left_bytes(const MemoryBudget& budget) noexcept;

// Throws OutOfMemory with the items, the bytes needed and the bytes left when the plan does not fit what the budget has left.
void require_room(const MemoryPlan& plan, const MemoryBudget& budget);

}  // namespace secateur
