// One transformer block over the samples of a calibration group on the GPU.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
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

// Sums (kernels/product_sums.h) that inputs are added to, or null; those of the samples that are held out, which may be the same.
struct GramTarget {
  double* sums = nullptr;
  double* held_out = nullptr;
  // How far the inputs, and the hidden states that the outputs are added to, are from those of the dense model; or null.
  double* drift = nullptr;
};

// By site.
using GramTargets = std::array<GramTarget, std::size(kInputSiteNames)>;

// Works on as many whole samples at a time as keep the device busy; results of a sample do not depend on how many.
class BlockRunner {
 public:
  BlockRunner(const Architecture& architecture, Compute compute, SessionMemory& memory, MatrixLibrary& products, const Stream& stream,
              Timeline& timeline);

  // Takes what runs for groups of up to so many samples of up to that length keep, before the first of them does.
  void reserve(std::size_t samples, std::size_t sequence_length);

  // Memory that runs for groups of up to so many samples of up to that length keep for the next, and pinned memory that each takes.
  static std::uint64_t work_bytes(const Architecture& architecture, Compute compute, std::size_t samples, std::size_t sequence_length);
  // Of the statistics of a group while they are collected; as much on the device as in pinned memory.
  static std::uint64_t statistics_bytes(const Architecture& architecture, std::size_t samples, std::size_t sketches);
  // Of the device alone: what the sketches of a group are made by.
  static std::uint64_t sign_bytes(std::size_t samples, std::size_t sequence_length, std::size_t sketches);

  // Of the drift of those sites while a group of up to that size is collected.
  static std::uint64_t drift_bytes(const Architecture& architecture, std::size_t samples, std::size_t sequence_length, InputSites sites);

  // Statistics of those input sites, of which there is one at least; the hidden states stay as they are. sketches: 0 for the last inputs.
  // dense: hidden states of the dense model where the drift is wanted.
  std::vector<SiteStatistics> collect(DeviceShard& block, const DeviceGroup& group, InputSites sites, std::size_t sketches,
                                      const GramTargets& grams, float* dense, CallContext& context);
  // Replaces the hidden states by the output of the block, or of the block as it was loaded. Throws NonFinite when that has NaN or
  // infinity, which is then what the group holds.
  void propagate(DeviceShard& block, const DeviceGroup& group, bool dense, CallContext& context);
  // The same into device memory of as many values; the hidden states stay as they are, unless it is theirs.
  void run_into(DeviceShard& block, const DeviceGroup& group, float* output, bool dense, CallContext& context);

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
  // added_to: the hidden states that the output of what reads the input is added to, or null.
  void add_to_grams(const Tile& tile, InputSite site, const float* input, const float* added_to);
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
  DeviceBuffer<std::uint16_t> narrowed_;
  DeviceBuffer<unsigned> flag_;
};

}  // namespace secateur::gpu
