// What the address sanitizer is told, so that it finds accesses of kernels, backends and tests to memory that is not theirs. The emulation
// itself is built without it, for speed; what it does to memory in a kernel's name is checked here or by the memcpy and memset that the
// sanitizer intercepts. Nothing of this is there without SECATEUR_ADDRESS_CHECK.
#pragma once

#include <cstddef>

#if defined(SECATEUR_ADDRESS_CHECK)

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

// What the compiler calls before an access.
extern "C" void __asan_storeN(void* address, std::size_t bytes);

#endif

namespace secateur::cuda_on_host {

#if defined(SECATEUR_ADDRESS_CHECK)

inline void forbid(const void* memory, std::size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void allow(const void* memory, std::size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
// Ends the process with a report unless the memory may be written.
inline void require_writable(void* memory, std::size_t bytes) { __asan_storeN(memory, bytes); }

#else

inline void forbid(const void*, std::size_t) {}
inline void allow(const void*, std::size_t) {}
inline void require_writable(void*, std::size_t) {}

#endif

}  // namespace secateur::cuda_on_host
