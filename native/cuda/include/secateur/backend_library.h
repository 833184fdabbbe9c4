// What a backend in a shared library of its own exports. Engine and library come from one build: the interface is C++, and a mark tells
// that both mean the same by it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "secateur/backend.h"

// Changes with every change of backend.h or of what it includes.
#define SECATEUR_BACKEND_MARK "secateur-backend-5"

#if defined(__GNUC__)
#define SECATEUR_BACKEND_EXPORT __attribute__((visibility("default")))
#else
#define SECATEUR_BACKEND_EXPORT
#endif

extern "C" {

// SECATEUR_BACKEND_MARK; nothing else may be called when it is another.
SECATEUR_BACKEND_EXPORT const char* secateur_backend_mark();

// Number of usable devices. Writes why, for people, into `reason` (cut to its capacity, always terminated); never fails without a driver.
SECATEUR_BACKEND_EXPORT int secateur_backend_query(char* reason, std::size_t capacity);

// A backend on the first device, to be deleted by the caller, or null with the reason. Threads ≥ 1 are for what it computes on the host;
// the one that makes its calls is the first and settles itself.
SECATEUR_BACKEND_EXPORT secateur::Backend* secateur_backend_create(std::uint64_t memory_budget_bytes, std::size_t threads,
                                                                   const secateur::Placement& placement, char* reason,
                                                                   std::size_t capacity);

}  // extern "C"
