// Row allocation on the GPU: order, dense outputs and quality curves stay there, and so do the steps of the search; the host reads their
// qualities and decides by the same code as for the CPU. What the kernels do not know is done on the host (host_work.h).
#pragma once

#include "cuda/device_buffer.h"
#include "cuda/stream.h"
#include "secateur/allocation.h"
#include "secateur/thread_pool.h"

namespace secateur::gpu {

// Device memory of an allocation, besides the weights.
std::uint64_t allocation_bytes(std::size_t rows, std::size_t columns, std::size_t samples, const AllocationOptions& options);

// weights: device [rows, columns] float32; `input.weights` is not used. Throws as secateur::allocate_rows does.
AllocatedRows allocate_rows(const AllocationInput& input, const float* weights, const AllocationOptions& options, SessionMemory& memory,
                            ThreadPool& pool, const Stream& stream, Timeline& timeline, CallContext& context);

}  // namespace secateur::gpu
