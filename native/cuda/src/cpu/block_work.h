// Memory that a run of a block over a group works in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>

#include "cpu/attention.h"
#include "cpu/projection.h"
#include "secateur/backend.h"

namespace secateur::cpu {

// Tokens of a work item: enough for the matrix products to run at full speed, few enough for many threads.
inline constexpr std::size_t kTokenTile = 256;
inline constexpr std::size_t kInputSites = std::size(kInputSiteNames);

// What a run of a block collects besides sums of squares.
struct Collected {
  std::size_t sketches = 0;
  // Of which inputs are added to Gram matrices.
  InputSites gram_sites = {};
};

// Sizes of what a run of a block needs for a group.
struct WorkSizes {
  std::size_t samples;
  std::size_t tokens;
  // Of a sample.
  std::size_t tiles;
  std::size_t tile_tokens;
  AttentionLayout attention;
  // Per thread: floats for the activations of a tile or the scores of a head, bytes for the copies that products read.
  std::size_t scratch;
  std::size_t copies;
  std::size_t widths[kInputSites];

  WorkSizes(const Architecture& architecture, std::span<const ProjectionForm> projections, std::size_t group_samples, std::size_t length);
};

// The parts of a work space, one after the other, each on cache lines of its own. Without memory it only counts the bytes.
struct WorkSpace {
  // First of all, for the others are found by counting it up.
  std::size_t bytes = 0;
  // [tokens, width]
  float* queries;
  float* keys;
  float* values;
  float* attended;
  // Per thread.
  float* scratch;
  std::uint8_t* copies;
  // Per site [samples, tiles, width]: sums of squares of each tile, to be added in order.
  double* tile_sums[kInputSites] = {};
  // Per site [samples, tiles, sketches, width]: random-sign sums of each tile, to be added in order.
  float* tile_sketches[kInputSites] = {};
  // Per site [tokens, width], where they are added to a Gram matrix.
  float* gram_inputs[kInputSites] = {};

  WorkSpace(const Architecture& architecture, const WorkSizes& sizes, std::size_t threads, const std::optional<Collected>& collected,
            std::uint8_t* memory);

 private:
  template <class T>
  T* take(std::uint8_t* memory, std::size_t size);
};

// Memory of a run of a block whose projections have those forms, besides weights and hidden states. `collected`: of a run that collects.
std::uint64_t block_work_bytes(const Architecture& architecture, std::span<const ProjectionForm> projections, std::size_t samples,
                               std::size_t sequence_length, std::size_t threads, const std::optional<Collected>& collected);

}  // namespace secateur::cpu
