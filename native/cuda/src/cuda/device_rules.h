// What is dropped where no search decides it, of the rules that kernels know: N:M patterns and given row sparsities.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device_buffer.h"
#include "cuda/stream.h"
#include "secateur/allocation.h"

namespace secateur::gpu {

bool is_device_rule(const AllocationOptions& options);

// Device memory of it, besides the weights.
std::uint64_t rule_bytes(std::size_t rows, std::size_t columns, std::size_t samples);

// weights: device [rows, columns] float32, all finite. The mask is the CPU's, qualities agree with its within rounding.
AllocatedRows drop_by_rule(const AllocationInput& input, const float* weights, const AllocationOptions& options, SessionMemory& memory,
                           const Stream& stream, Timeline& timeline, CallContext& context);

}  // namespace secateur::gpu
