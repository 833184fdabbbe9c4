#include "cpu/repair/output_error.h"

#include <algorithm>

#include "cpu/gemm.h"

namespace secateur::cpu {

std::uint64_t output_error_bytes(std::size_t columns, std::size_t threads) { return threads * 2 * kRepairRows * columns * sizeof(float); }

void measure_output_error(std::span<const float> weights, const float* pruned, std::span<const float> gram, std::span<double> errors,
                          MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  const std::size_t rows = errors.size();
  const std::size_t columns = weights.size() / rows;
  const std::size_t tile = kRepairRows * columns;
  Buffer<float> scratch(budget, pool.size() * 2 * tile, "the error of a projection");
  pool.parallel_for((rows + kRepairRows - 1) / kRepairRows, [&](std::size_t item, std::size_t worker) {
    context.check();
    const std::size_t first = item * kRepairRows;
    const std::size_t count = std::min(kRepairRows, rows - first);
    const PhaseScope scope(context, "repair", 2.0 * static_cast<double>(count * columns * columns));
    float* const difference = scratch.data() + worker * 2 * tile;
    float* const product = difference + tile;
    const float* const values = weights.data() + first * columns;
    std::copy_n(values, count * columns, difference);
    if (pruned != nullptr) {
      const float* const others = pruned + first * columns;
      for (std::size_t i = 0; i < count * columns; ++i) difference[i] -= others[i];
    }
    multiply(count, columns, columns, 1.0F, difference, columns, gram.data(), columns, product, columns);
    for (std::size_t row = 0; row < count; ++row) {
      double sum = 0;
      for (std::size_t i = row * columns; i < (row + 1) * columns; ++i)
        sum += static_cast<double>(difference[i]) * static_cast<double>(product[i]);
      errors[first + row] = std::max(sum, 0.0);
    }
  });
}

}  // namespace secateur::cpu
