// The tensors of a shard, checked against the architecture and converted to what the CPU computes with.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "common/shard_layout.h"
#include "cpu/projection.h"
#include "cpu/spare_buffers.h"
#include "secateur/backend.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// The token table keeps its stored type: few of its rows are read.
struct TokenTable {
  ElementType element_type = ElementType::kF32;
  Buffer<std::uint8_t> bytes;
};

class Shard {
 public:
  // The kind follows from the roles. Throws InvalidArgument naming the tensor that is missing, doubled or of the wrong shape.
  Shard(const std::string& name, std::span<const TensorView> tensors, std::size_t attention_window, const Architecture& architecture,
        Compute compute, MemoryBudget& budget, SpareBuffers& spare, ThreadPool& pool, CallContext& context);
  // Leaves the memory of projections to those of another shard.
  void give_back_to(SpareBuffers& spare) &&;

  ShardKind kind() const noexcept { return kind_; }
  // Keys that each query of a block sees; 0 for all.
  std::size_t attention_window() const noexcept { return attention_window_; }
  const TokenTable& token_table() const noexcept { return token_table_; }
  // A weight that activations are multiplied with. Throws InvalidArgument when there is none in that role.
  const Projection& projection(TensorRole role) const;
  Projection& projection(TensorRole role);
  // The projection as it was loaded, where it was kept, else as it is.
  const Projection& dense_projection(TensorRole role) const;
  // From now on the projection as it was loaded is kept beside what becomes of it. Throws OutOfMemory.
  void keep_dense(TensorRole role, Compute compute, MemoryBudget& budget, ThreadPool& pool, CallContext& context);
  // The float32 values of any other tensor, or null when the shard has none in that role.
  const float* find(TensorRole role) const noexcept;

 private:
  std::string name_;
  std::size_t attention_window_;
  ShardKind kind_ = ShardKind::kBlock;
  TokenTable token_table_;
  std::map<TensorRole, Projection> projections_;
  // Those that have changed.
  std::map<TensorRole, Projection> dense_;
  std::map<TensorRole, Matrix> others_;
};

}  // namespace secateur::cpu
