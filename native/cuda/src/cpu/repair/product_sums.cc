#include "cpu/repair/product_sums.h"

#include "cpu/gemm.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kTileValues = kProductTile * kProductTile;

}  // namespace

ProductSums::ProductSums(MemoryBudget& budget, ProductShape shape, std::size_t threads, const std::string& purpose)
    : ProductTotals(budget, shape, purpose), products_(budget, threads * kTileValues, purpose) {}

std::uint64_t ProductSums::bytes(ProductShape shape, std::size_t threads) {
  return content_bytes(shape) + threads * kTileValues * sizeof(float);
}

void ProductSums::add(const float* left, const float* right, std::size_t samples, std::size_t tokens, ThreadPool& pool,
                      CallContext& context) {
  const ProductShape whole = shape();
  pool.parallel_for(items(), [&](std::size_t item, std::size_t worker) {
    const ProductTile part = tile(item);
    const PhaseScope scope(context, "gram", 2 * static_cast<double>(samples * tokens * part.size()),
                           static_cast<double>(samples * (sizeof(float) * tokens * (part.rows + part.columns) + 32 * part.size())));
    float* const products = products_.data() + worker * kTileValues;
    for (std::size_t sample = 0; sample < samples; ++sample) {
      context.check();
      const float* const y = left + sample * tokens * whole.rows + part.first_row;
      const float* const x = right + sample * tokens * whole.columns + part.first_column;
      multiply_left_transposed(part.rows, part.columns, tokens, 1.0F, y, whole.rows, x, whole.columns, products, part.columns);
      for (std::size_t i = 0; i < part.size(); ++i) add_to_sum(high(part)[i], low(part)[i], static_cast<double>(products[i]));
    }
  });
}

}  // namespace secateur::cpu
