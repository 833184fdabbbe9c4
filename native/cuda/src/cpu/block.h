// One transformer block over the samples of a calibration group.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <vector>

#include "cpu/repair/product_sums.h"
#include "cpu/shard.h"
#include "cpu/state_buffer.h"
#include "secateur/backend.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// Hidden states [samples, sequence_length, hidden] and token ids of a group.
struct Group {
  GroupTokens tokens;
  StateBuffer hidden;
  // Of the dense model, where targets are made from them.
  std::optional<StateBuffer> dense = std::nullopt;
};

// Sums that inputs are added to, or null; those of the samples that are held out, which may be the same.
struct GramTarget {
  ProductSums* sums = nullptr;
  ProductSums* held_out = nullptr;
  // How far the inputs, and the hidden states that the outputs are added to, are from those of the dense model; or null.
  ProductSums* drift = nullptr;
};

// By site.
using GramTargets = std::array<GramTarget, std::size(kInputSiteNames)>;

// Runs blocks. Work is cut into tiles of tokens that never span samples and have a fixed size, so results do not depend on the threads.
class BlockRunner {
 public:
  BlockRunner(const Architecture& architecture, MemoryBudget& budget, ThreadPool& pool);

  // Statistics of those input sites, of which there is one at least, with sketches or the last inputs; the hidden states stay as they are.
  std::vector<SiteStatistics> collect(const Shard& block, const Group& group, InputSites sites, const GramTargets& grams,
                                      std::size_t sketches, CallContext& context);
  // Replaces the hidden states by the block's output.
  void propagate(const Shard& block, Group& group, CallContext& context);
  // Those of the dense model, which are kept, by the output of the block as it was loaded.
  void propagate_dense(const Shard& block, Group& group, CallContext& context);
  // Puts the block's output, as large as the hidden states, elsewhere.
  void run_into(const Shard& block, const Group& group, StateBuffer& output, CallContext& context);
  // Work space is kept from run to run until then: fresh memory costs time, page by page.
  void release_work_space() {
    work_space_ = {};
    drift_ = {};
  }

 private:
  struct Pass;
  void run(Pass& pass);
  void make_rotary_tables(std::size_t sequence_length);

  const Architecture& architecture_;
  MemoryBudget& budget_;
  ThreadPool& pool_;
  // [positions, head_dimension / 2]
  Buffer<float> cosines_;
  Buffer<float> sines_;
  std::size_t rotary_positions_ = 0;
  Buffer<std::uint8_t> work_space_;
  // Of the sites whose drift is wanted, one after the other: [tokens, rows of the drift].
  Buffer<float> drift_;
};

// What a run of a block collects besides sums of squares.
struct Collected {
  std::size_t sketches = 0;
  // Of which inputs are added to Gram matrices.
  InputSites gram_sites = {};
};

// Memory of a run of a block whose projections have those forms, besides weights and hidden states. `collected`: of a run that collects.
std::uint64_t block_work_bytes(const Architecture& architecture, std::span<const ProjectionForm> projections, std::size_t samples,
                               std::size_t sequence_length, std::size_t threads, const std::optional<Collected>& collected);
// What a session with dense targets needs for the drift of those inputs.
std::uint64_t block_drift_bytes(const Architecture& architecture, std::size_t tokens, InputSites sites);
// Of the tables of the rotation, which a session keeps.
std::uint64_t rotary_table_bytes(const Architecture& architecture, std::size_t sequence_length);

// Applies the architecture's normalisation to `tokens` rows; the result may take the place of x.
void normalize(const Architecture& architecture, const float* x, const float* weight, const float* bias, std::size_t tokens, float* result);

}  // namespace secateur::cpu
