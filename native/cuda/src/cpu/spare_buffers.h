// The memory of weights that are not needed any more, for those of the next block.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "common/shard_layout.h"
#include "secateur/backend.h"

namespace secateur::cpu {

// What the system gives it clears first, which takes nearly as long as filling it with weights. What is spare stays counted.
class SpareBuffers {
 public:
  void keep(Buffer<float> buffer) { buffers_.push_back(std::move(buffer)); }
  // One that has been kept, where there is one of that size; its values are arbitrary. Throws OutOfMemory.
  Buffer<float> take(MemoryBudget& budget, std::size_t size, const std::string& purpose);
  // Gives back what none of the tensors is as large as.
  void keep_only_for(std::span<const TensorView> tensors);
  void give_back() { buffers_.clear(); }

 private:
  std::vector<Buffer<float>> buffers_;
};

}  // namespace secateur::cpu
