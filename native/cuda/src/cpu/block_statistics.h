// What a run of a block finds out about the inputs of its projections.
#pragma once

#include <vector>

#include "cpu/block_task.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// Threads observe tiles side by side; what tiles give is added up in their order, so sums do not depend on the threads.
class BlockStatistics {
 public:
  // All outlive this.
  BlockStatistics(const BlockTask& task, const WorkSizes& sizes, const WorkSpace& work);

  // x: [tile.count, width of the site], the inputs of a tile. added_to: [tile.count, hidden], the hidden states that the output of what
  // reads x is added to, or null. Does nothing where they are not wanted.
  void observe(InputSite site, const TokenTile& tile, const float* x, const float* added_to);
  // By wanted site, after all tiles were observed. Throws NonFinite.
  std::vector<SiteStatistics> add_up(ThreadPool& pool) &&;

 private:
  void collect(std::size_t site, const TokenTile& tile, const float* x);
  void follow_drift(std::size_t site, const TokenTile& tile, const float* x, const float* added_to) const;
  // Adds the sums of the tiles of each sample in order and divides by the root of its tokens: sketches are then about as large as one
  // input.
  void add_sketches(std::size_t site, std::vector<float>& result) const;
  void add_squares(std::size_t site, std::vector<double>& sums) const;
  void add_products(std::size_t site, ThreadPool& pool) const;
  double* tile_sums(std::size_t site, const TokenTile& tile) const;

  const BlockTask& task_;
  const WorkSizes& sizes_;
  const WorkSpace& work_;
  std::vector<SiteStatistics> statistics_;
  // Of wanted sites: where the last inputs go.
  float* quality_inputs_[kInputSites] = {};
};

}  // namespace secateur::cpu
