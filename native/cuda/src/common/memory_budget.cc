#include "secateur/memory_budget.h"

namespace secateur {

void MemoryBudget::reserve(std::uint64_t bytes, const std::string& purpose) {
  std::uint64_t used = used_bytes_.load();
  do {
    const std::uint64_t available = limit_bytes_ > used ? limit_bytes_ - used : 0;
    if (bytes > available) {
      throw OutOfMemory(purpose + " needs " + std::to_string(bytes) + " bytes; " + std::to_string(available) + " of the memory budget of " +
                            std::to_string(limit_bytes_) + " are left.",
                        bytes, available);
    }
  } while (!used_bytes_.compare_exchange_weak(used, used + bytes));
}

}  // namespace secateur
