#include "secateur/memory_budget.h"

#include <sys/mman.h>

#include <new>
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

namespace secateur {

namespace {

constexpr std::align_val_t kAlignment{64};
#ifdef __SANITIZE_ADDRESS__
// Nothing is large: only what the allocator gives is watched for accesses out of bounds.
constexpr std::size_t kLargeBytes = SIZE_MAX;
#else
// A huge page.
constexpr std::size_t kLargeBytes = std::size_t{2} << 20;
#endif

}  // namespace

void* take_memory(std::size_t bytes) noexcept {
  if (bytes < kLargeBytes) return ::operator new(bytes, kAlignment, std::nothrow);
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  // Advice: where there are no huge pages, small ones do.
  static_cast<void>(madvise(memory, bytes, MADV_HUGEPAGE));
  return memory;
}

void give_back_memory(void* memory, std::size_t bytes) noexcept {
  if (bytes < kLargeBytes) {
    ::operator delete(memory, kAlignment);
  } else {
    static_cast<void>(munmap(memory, bytes));
  }
}

void trim_freed_memory() noexcept {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

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
  std::uint64_t peak = peak_bytes_.load();
  while (peak < used + bytes && !peak_bytes_.compare_exchange_weak(peak, used + bytes)) {
  }
}

}  // namespace secateur
