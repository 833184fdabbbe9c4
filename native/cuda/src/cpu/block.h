// Runs blocks over calibration groups, with memory that is kept from run to run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/block_task.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

class BlockRunner {
 public:
  BlockRunner(const Architecture& architecture, MemoryBudget& budget, ThreadPool& pool);

  // Statistics of those input sites, of which there is one at least, with sketches or the last inputs; the hidden states stay as they are.
  std::vector<SiteStatistics> collect(const Shard& block, Group& group, InputSites sites, const GramTargets& grams, std::size_t sketches,
                                      CallContext& context);
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
  std::vector<SiteStatistics> run(const BlockTask& task);
  // Finds the drift of the sites that have targets for it: what the dense model has is put there, for the pruned one to be taken off.
  void begin_drift(BlockTask& task, BlockProgress& progress);
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

// What a session with dense targets needs for the drift of those inputs.
std::uint64_t block_drift_bytes(const Architecture& architecture, std::size_t tokens, InputSites sites);
// Whether a session can keep the progress of its groups, and what that takes for each of their streams.
bool can_keep_progress(const Architecture& architecture);
std::uint64_t block_progress_bytes(const Architecture& architecture, std::size_t tokens);
// Of the tables of the rotation, which a session keeps.
std::uint64_t rotary_table_bytes(const Architecture& architecture, std::size_t sequence_length);

}  // namespace secateur::cpu
