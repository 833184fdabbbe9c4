// Row allocation on the GPU: order, dense outputs and quality curves stay there, and so do the steps of the search; the host reads their
// qualities and decides by the same code as for the CPU.
#pragma once

#include "cuda/device_buffer.h"
#include "cuda/stream.h"
#include "secateur/allocation.h"

namespace secateur::gpu {

// Throws FailedPrecondition unless rows are searched for or all drop the same share.
void require_searched(Allocation allocation, Pattern pattern);

// Device memory of an allocation, besides the weights.
std::uint64_t allocation_bytes(std::size_t rows, std::size_t columns, std::size_t samples);

// Throws FailedPrecondition unless the search is by the published code's default metrics.
void require_known_metrics(LayerQuality layer, RowQuality row);

// weights: device [rows, columns] float32; `input.weights` is not used. Throws as secateur::allocate_rows does.
AllocatedRows allocate_rows(const AllocationInput& input, const float* weights, const AllocationOptions& options, SessionMemory& memory,
                            const Stream& stream, Timeline& timeline, CallContext& context);

}  // namespace secateur::gpu
