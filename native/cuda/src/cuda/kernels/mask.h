// Masks of weights: one bit each, least significant first, 1 = dropped, rows padded to bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"
#include "cuda/tensor_core.h"

namespace secateur::gpu {

// Sets dropped weights [rows, columns] to +0; mask: [rows, ceil(columns / 8)].
cudaError_t apply_mask(float* weights, const std::uint8_t* mask, std::size_t rows, std::size_t columns, cudaStream_t stream);
// Of 16 bits each.
cudaError_t apply_mask(std::uint16_t* weights, const std::uint8_t* mask, std::size_t rows, std::size_t columns, cudaStream_t stream);
// values [rows, columns] = weights, dropped ones 0, of the rows that are marked [rows] by 1, or of all where that is null.
cudaError_t copy_masked(const float* weights, const std::uint8_t* mask, const std::uint8_t* marked, std::size_t rows, std::size_t columns,
                        float* values, cudaStream_t stream);
// Marks the first counts[row] columns of each row's order; orders: [rows, columns], counts: [rows]; mask is overwritten.
cudaError_t pack_mask(const std::uint32_t* orders, const std::int32_t* counts, std::size_t rows, std::size_t columns, std::uint8_t* mask,
                      cudaStream_t stream);

}  // namespace secateur::gpu
