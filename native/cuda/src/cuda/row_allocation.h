// Row allocation on the GPU: order, dense outputs and quality curves are made there. The steps of the search are too where the metrics are
// the default ones, and the host reads their qualities; other metrics it measures in curves that it reads. It decides by the same code as
// for the CPU. What the kernels do not know is done on the host (host_work.h).
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
