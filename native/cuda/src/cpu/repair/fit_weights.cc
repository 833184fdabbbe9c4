#include "cpu/repair/fit_weights.h"

#include <algorithm>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/repair/output_error.h"

namespace secateur::cpu {

namespace {

// Matrices [kRepairRows, columns] that a thread works with.
constexpr std::size_t kMatrices = 4;

double dot(const float* left, const float* right, std::size_t size) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::size_t i = 0; i < size; ++i) sum += static_cast<double>(left[i]) * static_cast<double>(right[i]);
  return sum;
}

// The rows of one panel, which do not depend on those of others.
class Panel {
 public:
  Panel(const FitTask& task, std::size_t first, std::size_t rows, float* scratch, const float* inverse_diagonal)
      : task_(task),
        first_(first),
        rows_(rows),
        size_(rows * task.columns),
        kept_(scratch),
        residual_(scratch + kRepairRows * task.columns),
        direction_(scratch + 2 * kRepairRows * task.columns),
        product_(scratch + 3 * kRepairRows * task.columns),
        inverse_diagonal_(inverse_diagonal),
        progress_(rows) {}

  void start() {
    const std::size_t mask_bytes = (task_.columns + 7) / 8;
    for (std::size_t row = 0; row < rows_; ++row) {
      const std::uint8_t* const bits = &task_.mask[(first_ + row) * mask_bytes];
      for (std::size_t column = 0; column < task_.columns; ++column) {
        kept_[row * task_.columns + column] = (bits[column / 8] >> column % 8 & 1U) != 0 ? 0.0F : 1.0F;
      }
    }
    const float* const dense = task_.weights.data() + first_ * task_.columns;
    for (std::size_t i = 0; i < size_; ++i) direction_[i] = dense[i] - fitted()[i];
    multiply_by_gram();
    for (std::size_t i = 0; i < size_; ++i) residual_[i] = kept_[i] * product_[i];
    for (std::size_t row = 0; row < rows_; ++row) turn(row, 0);
  }

  void step() {
    multiply_by_gram();
    for (std::size_t row = 0; row < rows_; ++row) {
      const std::size_t begin = row * task_.columns;
      float* const direction = direction_ + begin;
      const double curvature = dot(direction, product_ + begin, task_.columns);
      // The row is fitted as well as float32 can.
      if (!(curvature > 0 && progress_[row] > 0)) continue;
      const auto length = static_cast<float>(progress_[row] / curvature);
      float* const weights = fitted() + begin;
      float* const residual = residual_ + begin;
      for (std::size_t i = 0; i < task_.columns; ++i) {
        weights[i] += length * direction[i];
        residual[i] -= length * kept_[begin + i] * product_[begin + i];
      }
      turn(row, progress_[row]);
    }
  }

 private:
  float* fitted() const { return task_.fitted + first_ * task_.columns; }

  // product = direction · (C + λI)
  void multiply_by_gram() {
    multiply(rows_, task_.columns, task_.columns, 1.0F, direction_, task_.columns, task_.gram.data(), task_.columns, product_,
             task_.columns);
    const auto damping = static_cast<float>(task_.damping);
    for (std::size_t i = 0; i < size_; ++i) product_[i] += damping * direction_[i];
  }

  // The next direction: the preconditioned residual, made conjugate to the one before, of which `before` is the progress; 0 for the first.
  void turn(std::size_t row, double before) {
    const std::size_t begin = row * task_.columns;
    const float* const residual = residual_ + begin;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::size_t i = 0; i < task_.columns; ++i) {
      sum += static_cast<double>(residual[i]) * static_cast<double>(residual[i] * inverse_diagonal_[i]);
    }
    progress_[row] = sum;
    const float kept_share = before > 0 ? static_cast<float>(sum / before) : 0.0F;
    for (std::size_t i = 0; i < task_.columns; ++i) {
      const float old = before > 0 ? direction_[begin + i] : 0.0F;
      direction_[begin + i] = residual[i] * inverse_diagonal_[i] + kept_share * old;
    }
  }

  const FitTask& task_;
  std::size_t first_;
  std::size_t rows_;
  std::size_t size_;
  // 1 where the weight is kept, else 0.
  float* kept_;
  float* residual_;
  float* direction_;
  float* product_;
  const float* inverse_diagonal_;
  // Of each row: residual · preconditioned residual.
  std::vector<double> progress_;
};

}  // namespace

std::uint64_t fit_bytes(std::size_t columns, std::size_t threads) {
  return threads * kMatrices * kRepairRows * columns * sizeof(float) + columns * sizeof(float);
}

void fit_weights(const FitTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  const std::size_t scratch_size = kMatrices * kRepairRows * task.columns;
  Buffer<float> scratch(budget, pool.size() * scratch_size, "the fit of a projection");
  Buffer<float> inverse_diagonal(budget, task.columns, "the fit of a projection");
  for (std::size_t column = 0; column < task.columns; ++column) {
    const double diagonal = static_cast<double>(task.gram[column * task.columns + column]) + task.damping;
    inverse_diagonal[column] = diagonal > 0 ? static_cast<float>(1 / diagonal) : 0.0F;
  }
  pool.parallel_for((task.rows + kRepairRows - 1) / kRepairRows, [&](std::size_t item, std::size_t worker) {
    const std::size_t first = item * kRepairRows;
    const std::size_t rows = std::min(kRepairRows, task.rows - first);
    const double products = static_cast<double>(task.iterations + 1) * static_cast<double>(rows * task.columns * task.columns);
    const PhaseScope scope(context, "repair", 2 * products);
    Panel panel(task, first, rows, scratch.data() + worker * scratch_size, inverse_diagonal.data());
    panel.start();
    for (int iteration = 0; iteration < task.iterations; ++iteration) {
      context.check();
      panel.step();
    }
  });
}

}  // namespace secateur::cpu
