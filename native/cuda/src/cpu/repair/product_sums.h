// Products of vectors of tokens, added up sample by sample: the Gram matrix of the inputs of a projection, and their drift.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "secateur/call_context.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// Of Σ yxᵀ.
struct ProductShape {
  std::size_t rows = 0;
  std::size_t columns = 0;
  // y is x: half of the matrix is summed up.
  bool symmetric = false;
};

constexpr ProductShape gram_shape(std::size_t columns) { return {columns, columns, true}; }

// Σ yxᵀ over tokens, y of float32 [rows] and x of float32 [columns]. The products of each sample are summed in float32, alike wherever the
// sample is computed; samples are added up in pairs of float64 that lose about 2^-100 of the sum. Rounded to float32, a matrix is therefore
// the same in whatever order, and on however many machines, its samples were added.
class ProductSums {
 public:
  // All zero. Throws OutOfMemory naming `purpose`.
  ProductSums(MemoryBudget& budget, ProductShape shape, std::size_t threads, const std::string& purpose);

  static std::uint64_t bytes(ProductShape shape, std::size_t threads);
  // Of `content`.
  static std::uint64_t content_bytes(ProductShape shape);

  ProductShape shape() const noexcept { return shape_; }
  // Adds the samples of y [samples, tokens, rows] and x [samples, tokens, columns]: the same where the shape is symmetric.
  void add(const float* left, const float* right, std::size_t samples, std::size_t tokens, ThreadPool& pool, CallContext& context);

  // What other sums of this shape take in: little-endian, of this version of the engine.
  std::span<const std::uint8_t> content() const noexcept;
  // Adds the content of other sums, of any alignment. Throws InvalidArgument when its size is another, and NonFinite.
  void add(std::span<const std::uint8_t> content, ThreadPool& pool, CallContext& context);

  // matrix [rows, columns] = the sums rounded to float32. Throws NonFinite when one is NaN or infinite.
  void round_to(float* matrix, ThreadPool& pool, CallContext& context) const;

 private:
  ProductShape shape_;
  // Tiles one after the other, of each first the high parts [rows, columns of the tile], then the low ones.
  Buffer<double> sums_;
  // Per thread: the products of one sample in one tile.
  Buffer<float> products_;
};

}  // namespace secateur::cpu
