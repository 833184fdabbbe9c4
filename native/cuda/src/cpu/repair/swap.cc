#include "cpu/repair/swap.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/repair/output_error.h"

namespace secateur::cpu {

namespace {

// Matrices [kRepairRows, columns] in float32 of a panel: what its rows lose, and its products with both Gram matrices.
constexpr std::size_t kMatrices = 3;

}  // namespace

std::uint64_t swap_bytes(std::size_t columns, std::size_t threads) {
  return threads * columns * (kMatrices * kRepairRows * sizeof(float) + kSwapVectors * sizeof(double));
}

std::uint64_t swap_weights(const SwapTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  const std::size_t panels = (task.rows + kRepairRows - 1) / kRepairRows;
  const std::size_t tile = kRepairRows * task.columns;
  Buffer<float> scratch(budget, pool.size() * kMatrices * tile, "the swaps of a projection");
  Buffer<double> vectors(budget, pool.size() * kSwapVectors * task.columns, "the swaps of a projection");
  std::vector<std::uint64_t> swaps(panels);
  pool.parallel_for(panels, [&](std::size_t panel, std::size_t worker) {
    const std::size_t first = panel * kRepairRows;
    const std::size_t rows = std::min(kRepairRows, task.rows - first);
    const PhaseScope scope(context, "swap", 4.0 * static_cast<double>(rows * task.columns * task.columns));
    float* const lost = scratch.data() + worker * kMatrices * tile;
    float* const fitting = lost + tile;
    float* const held_out = fitting + tile;
    const std::size_t mask_bytes = (task.columns + 7) / 8;
    for (std::size_t row = 0; row < rows; ++row) {
      const std::uint8_t* const bits = task.mask + (first + row) * mask_bytes;
      const float* const weights = task.weights.data() + (first + row) * task.columns;
      for (std::size_t column = 0; column < task.columns; ++column) {
        lost[row * task.columns + column] = (bits[column / 8] >> column % 8 & 1U) != 0 ? weights[column] : 0.0F;
      }
    }
    multiply(rows, task.columns, task.columns, 1.0F, lost, task.columns, task.fitting.data(), task.columns, fitting, task.columns);
    multiply(rows, task.columns, task.columns, 1.0F, lost, task.columns, task.held_out.data(), task.columns, held_out, task.columns);
    for (std::size_t row = 0; row < rows; ++row) {
      context.check();
      const std::size_t begin = row * task.columns;
      double* const of_row = vectors.data() + worker * kSwapVectors * task.columns;
      swaps[panel] += swap_row(task, first + row, lost + begin, fitting + begin, held_out + begin, of_row);
    }
  });
  return std::accumulate(swaps.begin(), swaps.end(), std::uint64_t{0});
}

}  // namespace secateur::cpu
