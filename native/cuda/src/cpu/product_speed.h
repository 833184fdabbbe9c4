// How fast this machine multiplies matrices, for estimates of how long jobs take.
#pragma once

#include "secateur/backend.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// Floating-point operations a second of products on all threads, measured in some tens of milliseconds.
double measure_product_speed(Compute compute, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

}  // namespace secateur::cpu
