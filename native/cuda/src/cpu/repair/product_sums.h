// Products of vectors of tokens, added up sample by sample: the Gram matrix of the inputs of a projection, and their drift.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cpu/repair/product_totals.h"

namespace secateur::cpu {

// Σ yxᵀ over tokens, y of float32 [rows] and x of float32 [columns]. The products of each sample are summed in float32, alike wherever the
// sample is computed; samples are added up as ProductTotals does.
class ProductSums : public ProductTotals {
 public:
  // All zero. Throws OutOfMemory naming `purpose`.
  ProductSums(MemoryBudget& budget, ProductShape shape, std::size_t threads, const std::string& purpose);

  static std::uint64_t bytes(ProductShape shape, std::size_t threads);

  using ProductTotals::add;
  // Adds the samples of y [samples, tokens, rows] and x [samples, tokens, columns]: the same where the shape is symmetric.
  void add(const float* left, const float* right, std::size_t samples, std::size_t tokens, ThreadPool& pool, CallContext& context);

 private:
  // Per thread: the products of one sample in one tile.
  Buffer<float> products_;
};

}  // namespace secateur::cpu
