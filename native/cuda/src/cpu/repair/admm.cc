#include "cpu/repair/admm.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/repair/admm_schedule.h"
#include "cpu/repair/inverse_factor.h"
#include "cpu/repair/lowest.h"
#include "cpu/repair/output_error.h"
#include "secateur/error.h"

namespace secateur::cpu {

namespace {

using admm::count_of;
using admm::kDamping;
using admm::kGrowing;
using admm::kIterations;
using admm::kPenalty;
using admm::kSmallestNorm;
using admm::share_at;

class Admm {
 public:
  Admm(const AdmmTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context)
      : task_(task),
        pool_(pool),
        context_(context),
        norms_(task.columns),
        inverse_(budget, task.columns * task.columns, "the inverse of a Gram matrix"),
        factor_(budget, task.columns * task.columns, "the factor of a Gram matrix"),
        targets_(budget, task.rows * task.columns, "the targets of a projection"),
        scratch_(budget, pool.size() * 2 * kRepairRows * task.columns, "the fit of a projection") {}

  void run() {
    scale();
    invert();
    for_panels([&](std::size_t first, std::size_t rows, std::size_t worker) { start(first, rows, worker); });
    for (int iteration = 0; iteration < kIterations; ++iteration) {
      if (iteration < kGrowing) drop(share_at(iteration));
      for_panels([&](std::size_t first, std::size_t rows, std::size_t worker) { step(first, rows, worker); });
    }
    for_panels([&](std::size_t first, std::size_t rows, std::size_t) { finish(first, rows); });
  }

 private:
  std::size_t mask_bytes() const { return (task_.columns + 7) / 8; }
  bool is_dropped(std::size_t row, std::size_t column) const {
    return (task_.mask[row * mask_bytes() + column / 8] >> column % 8 & 1U) != 0;
  }
  // Fitted weights and multipliers in one: their sum. Where a weight is kept the sum is the weight and the multiplier 0, elsewhere the sum
  // is the multiplier and the weight 0.
  float* sums(std::size_t row) { return task_.fitted + row * task_.columns; }

  template <class Visit>
  void for_panels(Visit visit) {
    pool_.parallel_for((task_.rows + kRepairRows - 1) / kRepairRows, [&](std::size_t panel, std::size_t worker) {
      context_.check();
      const std::size_t first = panel * kRepairRows;
      const std::size_t rows = std::min(kRepairRows, task_.rows - first);
      const PhaseScope scope(context_, "repair", 2.0 * static_cast<double>(rows * task_.columns * task_.columns));
      visit(first, rows, worker);
    });
  }

  void scale() {
    for (std::size_t column = 0; column < task_.columns; ++column) {
      norms_[column] = std::sqrt(std::max(task_.gram[column * task_.columns + column], 0.0F)) + kSmallestNorm;
    }
  }

  float scaled_gram(std::size_t row, std::size_t column) const {
    return task_.gram[row * task_.columns + column] / (norms_[row] * norms_[column]);
  }

  // inverse = (scaled Gram matrix + (damping + penalty) I)⁻¹
  void invert() {
    const std::size_t columns = task_.columns;
    pool_.parallel_for(columns, [&](std::size_t row, std::size_t) {
      context_.check();
      for (std::size_t column = 0; column < columns; ++column) factor_[row * columns + column] = scaled_gram(row, column);
      factor_[row * columns + row] += static_cast<float>(kDamping + kPenalty);
    });
    if (!inverse_factor(factor_.data(), columns, pool_, context_)) {
      throw Error(ErrorCode::kNonFinite, "The Gram matrix of the inputs has no Cholesky factor.");
    }
    for (std::size_t row = 1; row < columns; ++row) std::fill_n(factor_.data() + row * columns, row, 0.0F);
    pool_.parallel_for((columns + kRepairRows - 1) / kRepairRows, [&](std::size_t panel, std::size_t) {
      context_.check();
      const std::size_t first = panel * kRepairRows;
      const std::size_t rows = std::min(kRepairRows, columns - first);
      const PhaseScope scope(context_, "factor", 2.0 * static_cast<double>(rows * columns * (first + rows)));
      // Column i of the factor ends at row i.
      multiply_left_transposed(rows, columns, first + rows, 1.0F, factor_.data() + first, columns, factor_.data(), columns,
                               inverse_.data() + first * columns, columns);
    });
  }

  // Targets W C in scaled terms; the sums begin as the scaled weights.
  void start(std::size_t first, std::size_t rows, std::size_t worker) {
    const std::size_t columns = task_.columns;
    float* const products = scratch_.data() + worker * 2 * kRepairRows * columns;
    multiply(rows, columns, columns, 1.0F, task_.weights.data() + first * columns, columns, task_.gram.data(), columns, products, columns);
    for (std::size_t row = 0; row < rows; ++row) {
      float* const targets = targets_.data() + (first + row) * columns;
      for (std::size_t column = 0; column < columns; ++column) {
        const float weight = task_.weights[(first + row) * columns + column] * norms_[column];
        sums(first + row)[column] = weight;
        targets[column] = products[row * columns + column] / norms_[column] + static_cast<float>(kDamping) * weight;
      }
    }
  }

  void drop(double share) {
    if (task_.across_rows) {
      const double dropped = std::accumulate(task_.dropped_per_row.begin(), task_.dropped_per_row.end(), 0.0);
      const std::span<const float> values(task_.fitted, task_.rows * task_.columns);
      mark_lowest(values, task_.columns, find_lowest(values, count_of(dropped, share), pool_), pool_, task_.mask);
      return;
    }
    pool_.parallel_for((task_.rows + kRepairRows - 1) / kRepairRows, [&](std::size_t panel, std::size_t) {
      context_.check();
      std::vector<std::uint32_t> order(task_.columns);
      const std::size_t end = std::min(task_.rows, (panel + 1) * kRepairRows);
      for (std::size_t row = panel * kRepairRows; row < end; ++row) drop_of_row(row, count_of(task_.dropped_per_row[row], share), order);
    });
  }

  void drop_of_row(std::size_t row, std::size_t count, std::vector<std::uint32_t>& order) {
    std::uint8_t* const bits = task_.mask + row * mask_bytes();
    std::fill_n(bits, mask_bytes(), std::uint8_t{0});
    std::iota(order.begin(), order.end(), 0U);
    const float* const values = sums(row);
    const auto is_lower = [&](std::uint32_t left, std::uint32_t right) {
      const std::uint32_t a = magnitude_bits(values[left]);
      const std::uint32_t b = magnitude_bits(values[right]);
      return a < b || (a == b && left < right);
    };
    if (count < order.size()) std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(), is_lower);
    for (std::size_t i = 0; i < count; ++i) bits[order[i] / 8] |= static_cast<std::uint8_t>(1U << order[i] % 8);
  }

  // The least squares fit that the penalty draws to the kept weights, and the multipliers that make up for it.
  void step(std::size_t first, std::size_t rows, std::size_t worker) {
    const std::size_t columns = task_.columns;
    float* const right = scratch_.data() + worker * 2 * kRepairRows * columns;
    float* const solution = right + kRepairRows * columns;
    for (std::size_t row = 0; row < rows; ++row) {
      const float* const values = sums(first + row);
      const float* const targets = targets_.data() + (first + row) * columns;
      for (std::size_t column = 0; column < columns; ++column) {
        const float drawn = is_dropped(first + row, column) ? -values[column] : values[column];
        right[row * columns + column] = targets[column] + static_cast<float>(kPenalty) * drawn;
      }
    }
    multiply(rows, columns, columns, 1.0F, right, columns, inverse_.data(), columns, solution, columns);
    for (std::size_t row = 0; row < rows; ++row) {
      float* const values = sums(first + row);
      for (std::size_t column = 0; column < columns; ++column) {
        const float multiplier = is_dropped(first + row, column) ? values[column] : 0.0F;
        values[column] = solution[row * columns + column] + multiplier;
      }
    }
  }

  void finish(std::size_t first, std::size_t rows) {
    for (std::size_t row = first; row < first + rows; ++row) {
      float* const values = sums(row);
      for (std::size_t column = 0; column < task_.columns; ++column) {
        values[column] = is_dropped(row, column) ? 0.0F : values[column] / norms_[column];
      }
    }
  }

  const AdmmTask& task_;
  ThreadPool& pool_;
  CallContext& context_;
  // [columns]: of the input columns over all tokens.
  std::vector<float> norms_;
  // [columns, columns]
  Buffer<float> inverse_;
  Buffer<float> factor_;
  // [rows, columns]
  Buffer<float> targets_;
  // Per thread [kRepairRows, columns] twice.
  Buffer<float> scratch_;
};

}  // namespace

std::uint64_t admm_bytes(std::size_t rows, std::size_t columns, std::size_t threads) {
  return (2 * columns * columns + rows * columns + threads * 2 * kRepairRows * columns) * sizeof(float);
}

void choose_by_admm(const AdmmTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  Admm(task, budget, pool, context).run();
}

}  // namespace secateur::cpu
