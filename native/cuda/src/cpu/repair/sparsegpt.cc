#include "cpu/repair/sparsegpt.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/repair/output_error.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kBlockColumns = 128;

// A weight of a block: its row and column in one number, and what dropping it costs.
struct Candidate {
  float score;
  std::uint32_t place;

  // Of equal scores the first place.
  bool operator<(const Candidate& other) const { return score < other.score || (score == other.score && place < other.place); }
};

class SparseGpt {
 public:
  SparseGpt(const SparseGptTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context)
      : task_(task),
        pool_(pool),
        context_(context),
        candidates_(budget, task.rows * kBlockColumns, "the scores of a block of columns"),
        errors_(budget, pool.size() * kRepairRows * kBlockColumns, "the errors of a block of columns") {}

  void run() {
    for (std::size_t first = 0; first < task_.columns; first += kBlockColumns) {
      const Block block = {first, std::min(kBlockColumns, task_.columns - first)};
      for_rows([&](std::size_t row, std::size_t) { choose(block, row); });
      if (task_.across_rows) choose_across_rows(block);
      pool_.parallel_for(panels(), [&](std::size_t panel, std::size_t worker) { update(block, panel, worker); });
    }
  }

 private:
  struct Block {
    std::size_t first;
    std::size_t columns;
    std::size_t end() const { return first + columns; }
  };

  std::size_t panels() const { return (task_.rows + kRepairRows - 1) / kRepairRows; }
  std::size_t mask_bytes() const { return (task_.columns + 7) / 8; }
  float factor(std::size_t row, std::size_t column) const { return task_.factor[row * task_.columns + column]; }
  float* weights(std::size_t row) const { return task_.weights + row * task_.columns; }
  bool is_dropped(std::size_t row, std::size_t column) const {
    return (task_.mask[row * mask_bytes() + column / 8] >> column % 8 & 1U) != 0;
  }
  void drop(std::size_t row, std::size_t column) {
    task_.mask[row * mask_bytes() + column / 8] |= static_cast<std::uint8_t>(1U << column % 8);
  }
  // Of so many weights that are dropped in all columns, those of the columns before `column`.
  std::size_t dropped_before(std::size_t column, std::size_t dropped) const { return column * dropped / task_.columns; }
  std::size_t share(const Block& block, std::size_t dropped) const {
    return dropped_before(block.end(), dropped) - dropped_before(block.first, dropped);
  }

  template <class Visit>
  void for_rows(Visit visit) {
    pool_.parallel_for(panels(), [&](std::size_t panel, std::size_t worker) {
      context_.check();
      const std::size_t end = std::min(task_.rows, (panel + 1) * kRepairRows);
      for (std::size_t row = panel * kRepairRows; row < end; ++row) visit(row, worker);
    });
  }

  // Scores w² / U²ⱼⱼ of a row; unless rows are compared, drops the row's share of them.
  void choose(const Block& block, std::size_t row) {
    Candidate* const candidates = candidates_.data() + row * block.columns;
    for (std::size_t i = 0; i < block.columns; ++i) {
      const std::size_t column = block.first + i;
      const float scaled = weights(row)[column] / factor(column, column);
      candidates[i] = {scaled * scaled, static_cast<std::uint32_t>(row * block.columns + i)};
    }
    if (!task_.across_rows)
      drop_lowest(block, candidates, block.columns, share(block, static_cast<std::size_t>(task_.dropped_per_row[row])));
  }

  void choose_across_rows(const Block& block) {
    const auto dropped = std::accumulate(task_.dropped_per_row.begin(), task_.dropped_per_row.end(), std::size_t{0},
                                         [](std::size_t sum, std::int32_t count) { return sum + static_cast<std::size_t>(count); });
    drop_lowest(block, candidates_.data(), task_.rows * block.columns, share(block, dropped));
  }

  void drop_lowest(const Block& block, Candidate* candidates, std::size_t size, std::size_t count) {
    if (count < size) std::nth_element(candidates, candidates + count, candidates + size);
    for (std::size_t i = 0; i < std::min(count, size); ++i) {
      drop(candidates[i].place / block.columns, block.first + candidates[i].place % block.columns);
    }
  }

  void update(const Block& block, std::size_t panel, std::size_t worker) {
    context_.check();
    const std::size_t first = panel * kRepairRows;
    const std::size_t rows = std::min(kRepairRows, task_.rows - first);
    const std::size_t right = task_.columns - block.end();
    const PhaseScope scope(context_, "repair", 2.0 * static_cast<double>(rows * block.columns * (block.columns / 2 + right)));
    float* const errors = errors_.data() + worker * kRepairRows * kBlockColumns;
    for (std::size_t row = 0; row < rows; ++row) {
      float* const values = weights(first + row);
      for (std::size_t i = 0; i < block.columns; ++i) {
        const std::size_t column = block.first + i;
        float& error = errors[row * block.columns + i];
        error = 0.0F;
        if (!is_dropped(first + row, column)) continue;
        error = values[column] / factor(column, column);
        values[column] = 0.0F;
        const float* const row_of_factor = task_.factor + column * task_.columns;
        for (std::size_t j = column + 1; j < block.end(); ++j) values[j] -= error * row_of_factor[j];
      }
    }
    if (right == 0) return;
    multiply(rows, right, block.columns, -1.0F, errors, block.columns, task_.factor + block.first * task_.columns + block.end(),
             task_.columns, weights(first) + block.end(), task_.columns, true);
  }

  const SparseGptTask& task_;
  ThreadPool& pool_;
  CallContext& context_;
  // [rows, columns of a block]
  Buffer<Candidate> candidates_;
  // Per thread [kRepairRows, columns of a block]: what each column leaves for those to its right.
  Buffer<float> errors_;
};

}  // namespace

std::uint64_t sparsegpt_bytes(std::size_t rows, std::size_t threads) {
  return rows * kBlockColumns * sizeof(Candidate) + threads * kRepairRows * kBlockColumns * sizeof(float);
}

void sparsegpt(const SparseGptTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  SparseGpt(task, budget, pool, context).run();
}

}  // namespace secateur::cpu
