#include "cpu/repair/shifted_targets.h"

#include <algorithm>

#include "cpu/gemm.h"
#include "cpu/repair/output_error.h"

namespace secateur::cpu {

std::uint64_t shift_bytes(std::size_t columns, std::size_t threads) { return threads * 2 * kRepairRows * columns * sizeof(float); }

void shift_targets(const ShiftTask& task, float* targets, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  const std::size_t columns = task.columns;
  const std::size_t panel = kRepairRows * columns;
  Buffer<float> scratch(budget, pool.size() * 2 * panel, "the targets of a projection");
  const std::span<const float> of_hidden_states = task.drift.subspan(columns * columns);
  pool.parallel_for((task.rows + kRepairRows - 1) / kRepairRows, [&](std::size_t item, std::size_t worker) {
    context.check();
    const std::size_t first = item * kRepairRows;
    const std::size_t rows = std::min(kRepairRows, task.rows - first);
    const PhaseScope scope(context, "repair", 6.0 * static_cast<double>(rows * columns * columns));
    float* const products = scratch.data() + worker * 2 * panel;
    float* const half = products + panel;
    const float* const weights = task.weights.data() + first * columns;
    multiply(rows, columns, columns, 1.0F, weights, columns, task.drift.data(), columns, products, columns);
    if (!of_hidden_states.empty()) {
      for (std::size_t i = 0; i < rows * columns; ++i) products[i] += of_hidden_states[first * columns + i];
    }
    multiply_transposed(rows, columns, columns, 1.0F, products, columns, task.inverse_factor, columns, half, columns);
    multiply(rows, columns, columns, 1.0F, half, columns, task.inverse_factor, columns, products, columns);
    for (std::size_t i = 0; i < rows * columns; ++i) targets[first * columns + i] = weights[i] + products[i];
  });
}

}  // namespace secateur::cpu
