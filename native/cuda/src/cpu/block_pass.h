// The forward pass of a block over a group, cut into tiles of tokens that never span samples and have a fixed size, so that results do not
// depend on the threads.
#pragma once

#include <vector>

#include "cpu/block_statistics.h"
#include "cpu/block_task.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// The projections of a block; where the feed-forward half has no gate, the gate is the up projection.
struct BlockProjections {
  BlockProjections(const BlockTask& task, const Architecture& architecture);
  std::array<ProjectionForm, 7> forms() const;

  const Projection& query;
  const Projection& key;
  const Projection& value;
  const Projection& output;
  const Projection& gate;
  const Projection& up;
  const Projection& down;
};

// [positions, head_dimension / 2]
struct RotaryTables {
  const float* cosines;
  const float* sines;
};

class BlockPass {
 public:
  // All outlive this.
  BlockPass(const BlockTask& task, const Architecture& architecture, const BlockProjections& projections, const WorkSizes& sizes,
            const WorkSpace& work, const RotaryTables& tables, ThreadPool& pool);

  // Statistics by wanted site.
  std::vector<SiteStatistics> run() &&;

 private:
  // Calls visit(tile, worker) for all tiles, spread over the threads.
  template <class Visit>
  void for_tiles(const Visit& visit);
  // Normalises, projects to queries, keys and values, rotates.
  void project(const TokenTile& tile, std::size_t worker);
  void attend_head(std::size_t sample, std::size_t head, std::size_t worker);
  // Output projection and residual. The hidden states between the halves of the block; null where nothing behind attention is wanted.
  const float* mix(const TokenTile& tile, std::size_t worker);
  // halfway: what mix gave, now or in a run before.
  void feed_forward(const TokenTile& tile, const float* halfway, std::size_t worker);
  bool keeps_progress() const { return task_.progress != nullptr; }
  // activated = what the down projection reads; raised: scratch, where there is a gate.
  void activate(const float* x, std::size_t count, const ProjectionWorkspace& workspace, float* activated, float* raised);
  void write(const TokenTile& tile, const float* result);
  void normalize_tile(const float* x, TensorRole weight, TensorRole bias, std::size_t count, float* result);
  // Each head of queries or keys by itself, where the block has a weight for it.
  void normalize_heads(float* states, std::size_t heads, TensorRole role);
  void rotate(const TokenTile& tile, float* states, std::size_t heads);
  bool is_gated() const { return architecture_.feed_forward == FeedForward::kGatedSilu; }
  float* scratch_of(std::size_t worker) const { return work_.scratch + worker * sizes_.scratch; }
  ProjectionWorkspace workspace_of(std::size_t worker) const;

  const BlockTask& task_;
  const Architecture& architecture_;
  const BlockProjections& projections_;
  const WorkSizes& sizes_;
  const WorkSpace& work_;
  RotaryTables tables_;
  ThreadPool& pool_;
  BlockStatistics statistics_;
  // What attention gives: [tokens, query width].
  float* attended_;
};

}  // namespace secateur::cpu
