// What the CUDA backend leaves to the host: the code of the CPU backend, on weights that are read from the device. What runs where:
// docs/cuda.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/stream.h"
#include "secateur/allocation.h"
#include "secateur/call_context.h"
#include "secateur/memory_plan.h"
#include "secateur/thread_pool.h"

namespace secateur::gpu {

// Whether the kernels know how to allocate so, or the host does it. Some of it is then still done on the host, in curves that kernels
// swept: the optimal split, and the steps of searches by other metrics than the default ones.
bool runs_on_device(const AllocationOptions& options);
bool searches_on_host(const AllocationOptions& options);

// The times of what all threads work on are told as those of one of them, as the device's are.
template <class Work>
auto on_all_threads(ThreadPool& pool, CallContext& context, const Work& work) {
  CallContext part = context.begin_part();
  auto result = work(part);
  context.add_part(part, pool.size());
  return result;
}

// weights: device [rows, columns] float32; `input.weights` is not used. The result is the CPU backend's, to the bit.
AllocatedRows allocate_on_host(AllocationInput input, const float* weights, const AllocationOptions& options, ThreadPool& pool,
                               const Stream& stream, CallContext& context);
// The same for weights that are on the host.
AllocatedRows allocate_on_host(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context);

// Eigenvalues of W·Wᵀ, or of WᵀW where that is smaller, ascending. weights: device [rows, columns] float32.
std::vector<double> eigenvalues_on_host(std::size_t rows, std::size_t columns, const float* weights, ThreadPool& pool, const Stream& stream,
                                        CallContext& context);

// Memory of the host that an allocation takes, whether or not it runs on the device, and that eigenvalues do; the weights among it.
std::uint64_t host_allocation_bytes(std::size_t rows, std::size_t columns, std::size_t samples, const AllocationOptions& options,
                                    std::size_t threads);
std::uint64_t host_eigenvalues_bytes(std::size_t rows, std::size_t columns, std::size_t threads);

}  // namespace secateur::gpu
