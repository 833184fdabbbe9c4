// Sums of products of token vectors that devices hand over, added up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/product_layout.h"
#include "secateur/call_context.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// Pairs of float64 that lose about 2^-100 of the sum. Rounded to float32, a matrix is therefore the same in whatever order, and on however
// many machines, its samples were added.
class ProductTotals {
 public:
  // All zero. Throws OutOfMemory naming `purpose`.
  ProductTotals(MemoryBudget& budget, ProductShape shape, const std::string& purpose);

  // Of `content`.
  static std::uint64_t content_bytes(ProductShape shape) { return product_values(shape) * sizeof(double); }

  ProductShape shape() const noexcept { return shape_; }
  // What other sums of this shape take in: little-endian, of this version of the engine.
  std::span<const std::uint8_t> content() const noexcept;
  // Adds the content of other sums, of any alignment. Throws InvalidArgument when its size is another, and NonFinite.
  void add(std::span<const std::uint8_t> content, ThreadPool& pool, CallContext& context);

  // matrix [rows, columns] = the sums rounded to float32. Throws NonFinite when one is NaN or infinite.
  void round_to(float* matrix, ThreadPool& pool, CallContext& context) const;

 protected:
  std::size_t items() const noexcept;
  ProductTile tile(std::size_t item) const noexcept;
  double* high(const ProductTile& tile) noexcept { return sums_.data() + tile.offset; }
  double* low(const ProductTile& tile) noexcept { return high(tile) + tile.size(); }

 private:
  ProductShape shape_;
  Buffer<double> sums_;
};

}  // namespace secateur::cpu
