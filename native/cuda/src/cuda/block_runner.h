// One transformer block over the samples of a calibration group on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/device_shard.h"
#include "cuda/matrix_library.h"
#include "cuda/stream.h"
#include "secateur/backend.h"

namespace secateur::gpu {

// Hidden states [samples, sequence_length, hidden] of a group on the device, and its token ids.
struct DeviceGroup {
  const GroupTokens& tokens;
  float* hidden;
};

// Works on as many whole samples at a time as keep the device busy; results of a sample do not depend on how many.
class BlockRunner {
 public:
  BlockRunner(const Architecture& architecture, Compute compute, SessionMemory& memory, MatrixLibrary& products, const Stream& stream,
              Timeline& timeline);

  // Takes what runs for groups of so many samples keep, before the first of them does.
  void reserve(std::size_t samples, std::size_t sequence_length);

  // Memory that runs for groups of so many samples keep for the next, and pinned memory that each takes.
  static std::uint64_t work_bytes(const Architecture& architecture, Compute compute, std::size_t samples, std::size_t sequence_length);
  // Of the statistics of a group while they are collected; as much on the device as in pinned memory.
  static std::uint64_t statistics_bytes(const Architecture& architecture, std::size_t samples, std::size_t sketches);
  // Of the device alone: what the sketches of a group are made by.
  static std::uint64_t sign_bytes(std::size_t samples, std::size_t sequence_length, std::size_t sketches);

  // Statistics of those input sites, of which there is one at least; the hidden states stay as they are. sketches: 0 for the last inputs.
  std::vector<SiteStatistics> collect(DeviceShard& block, const DeviceGroup& group, InputSites sites, std::size_t sketches,
                                      CallContext& context);
  // Replaces the hidden states by the block's output. Throws NonFinite when that has NaN or infinity, which is then what the group holds.
  void propagate(DeviceShard& block, const DeviceGroup& group, CallContext& context);
  // The same into device memory of as many values; the hidden states stay as they are, unless it is theirs.
  void run_into(DeviceShard& block, const DeviceGroup& group, float* output, CallContext& context);

  // result[tokens, rows] = input · matrixᵀ + bias, in what the session computes.
  void multiply(const DeviceMatrix& matrix, const float* bias, const float* input, std::size_t tokens, float* result);
  // The same without bias for `count` rows of the matrix from `first` on; result: [tokens, count].
  void multiply_rows(const DeviceMatrix& matrix, std::size_t first, std::size_t count, const float* input, std::size_t tokens,
                     float* result);
  void normalize(std::size_t tokens, const float* input, const float* weight, const float* bias, float* output);
  // Makes room for inputs of products of that many values.
  void reserve_narrowed(std::size_t values);

 private:
  struct Tile;
  void start_product(const DeviceMatrix& matrix, std::size_t first, std::size_t count, const float* bias, const float* input,
                     std::size_t tokens, float* result);
  void make_rotary_tables(std::size_t sequence_length);
  void reserve_workspace(std::size_t tokens);
  void run_tile(DeviceShard& block, const Tile& tile, CallContext& context);
  void observe(const Tile& tile, InputSite site, const float* input);
  // Each of so many heads by itself, in place; nothing where there is no weight.
  void normalize_heads(std::size_t heads, const float* weight, float* states);

  const Architecture& architecture_;
  Compute compute_;
  SessionMemory& memory_;
  MatrixLibrary& products_;
  const Stream& stream_;
  Timeline& timeline_;
  // [positions, head_dimension / 2]
  DeviceBuffer<float> cosines_;
  DeviceBuffer<float> sines_;
  std::size_t rotary_positions_ = 0;
  // One allocation for the work of a tile, kept for the next.
  DeviceBuffer<float> workspace_;
  DeviceBuffer<bfloat16> narrowed_;
  DeviceBuffer<unsigned> flag_;
};

}  // namespace secateur::gpu
