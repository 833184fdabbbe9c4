// The tensors of a shard, checked against the architecture and converted to what the CPU computes with.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "secateur/backend.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// A float32 matrix [rows, columns]; vectors have one row.
struct Matrix {
  std::size_t rows = 0;
  std::size_t columns = 0;
  Buffer<float> values;
};

// The token table keeps its stored type: few of its rows are read.
struct TokenTable {
  ElementType element_type = ElementType::kF32;
  Buffer<std::uint8_t> bytes;
};

enum class ShardKind { kEmbedding, kBlock, kHead };

class Shard {
 public:
  // The kind follows from the roles. Throws InvalidArgument naming the tensor that is missing, doubled or of the wrong shape.
  Shard(const std::string& name, std::span<const TensorView> tensors, const Architecture& architecture, MemoryBudget& budget,
        ThreadPool& pool, CallContext& context);

  ShardKind kind() const noexcept { return kind_; }
  const TokenTable& token_table() const noexcept { return token_table_; }
  // Throws InvalidArgument when there is no such tensor.
  const Matrix& matrix(TensorRole role) const;
  Matrix& matrix(TensorRole role);
  // The values of a tensor, or null when the shard has none in that role.
  const float* find(TensorRole role) const noexcept;

 private:
  std::string name_;
  ShardKind kind_ = ShardKind::kBlock;
  TokenTable token_table_;
  std::map<TensorRole, Matrix> matrices_;
};

}  // namespace secateur::cpu
