// What splits a model's sparsity over its blocks, measured on the device. Formulas: docs/algorithms.md.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cuda/block_runner.h"
#include "cuda/device_shard.h"
#include "cuda/stream.h"
#include "secateur/backend.h"

namespace secateur::gpu {

// The block has arrived on the stream. Throws InvalidArgument or NonFinite naming the input that cannot be scored with.
OutlierCount count_outliers(DeviceShard& block, std::span<const ProjectionInputSquares> projections, double threshold,
                            SessionMemory& memory, const Stream& stream, Timeline& timeline, CallContext& context);

// The block is as it was afterwards, also when it throws, as do the scores above and a run of the block. find_group: hidden states for what
// is queued until it is called again.
std::vector<BlockSensitivity> measure_sensitivity(BlockRunner& blocks, DeviceShard& block, std::span<const std::uint32_t> groups,
                                                  const std::function<DeviceGroup(std::uint32_t)>& find_group,
                                                  std::span<const ProjectionInputSquares> projections, double sparsity, Compute compute,
                                                  const Architecture& architecture, SessionMemory& memory, const Stream& stream,
                                                  Timeline& timeline, CallContext& context);

// Device memory of these, besides the block, the hidden states and a run of the block.
std::uint64_t outlier_bytes(std::span<const TensorLayout> block, Compute compute);
// The most of what pruning takes, and of what the runs then do.
std::uint64_t sensitivity_bytes(const Architecture& architecture, std::span<const TensorLayout> block, Compute compute, std::size_t tokens);

}  // namespace secateur::gpu
