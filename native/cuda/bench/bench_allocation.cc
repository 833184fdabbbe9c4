// Quality curves and search against the straightforward way (a masked matrix product per step, as published), and the optimal split beside
// them, one thread, sorting included.
// usage: bench_allocation [rows columns samples repeats]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "cpu/allocation/row_order.h"
#include "cpu/gemm.h"
#include "reference.h"
#include "secateur/thread_pool.h"

namespace secateur::test {
namespace {

struct Problem {
  std::vector<float> weights;
  std::vector<float> mean_squares;
  std::vector<float> quality_inputs;
};

// An eighth of the rows can lose nearly everything; shifting more sparsity to them helps more and more, so the search tries every rate.
Problem make_problem(std::size_t rows, std::size_t columns, std::size_t samples) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> uniform;
  Problem problem;
  for (std::size_t row = 0; row < rows; ++row) {
    const double kept = row % 8 == 0 ? 0.02 : 0.9;
    for (std::size_t column = 0; column < columns; ++column) {
      const float value = 0.02F * normal(random);
      problem.weights.push_back(uniform(random) < kept ? value : 1e-3F * value);
    }
  }
  std::vector<float> scales(columns);
  for (float& scale : scales) scale = std::exp(0.5F * normal(random));
  problem.mean_squares.assign(columns, 0.0F);
  for (std::size_t sample = 0; sample < samples; ++sample) {
    for (std::size_t column = 0; column < columns; ++column) {
      const float value = scales[column] * normal(random);
      problem.quality_inputs.push_back(value);
      problem.mean_squares[column] += value * value / static_cast<float>(samples);
    }
  }
  return problem;
}

// Masks the weights by rank, multiplies by the matrix library, and compares the outputs, every step.
class MaskedProduct {
 public:
  explicit MaskedProduct(const AllocationInput& input)
      : input_(input),
        ranks_(input.rows * input.columns),
        masked_(input.rows * input.columns),
        dense_(input.rows * input.samples),
        pruned_(input.rows * input.samples) {
    std::vector<float> scales(input.columns);
    std::ranges::transform(input.mean_squares, scales.begin(), [](float value) { return std::sqrt(value); });
    const allocation::RowScanFunctions functions = allocation::row_scan_functions(cpu::selected_instruction_set());
    allocation::RowOrders orders(1, input.columns, functions);
    allocation::RowOrders::Scratch scratch(input.columns);
    std::vector<std::uint32_t> keys(input.columns);
    std::vector<std::uint32_t> order(input.columns);
    for (std::size_t row = 0; row < input.rows; ++row) {
      const allocation::RowScores scores{.weights = &input.weights[row * input.columns], .scales = scales.data(), .columns = input.columns};
      allocation::score_row(functions, scores, keys);
      orders.group(0, keys, scratch);
      orders.load_upwards(0, scores, 0, order, scratch);
      for (std::size_t j = 0; j < input.columns; ++j) ranks_[row * input.columns + order[j]] = static_cast<std::int32_t>(j);
    }
    multiply(input.weights.data(), dense_);
  }

  Evaluation evaluate(const std::vector<std::int32_t>& counts) {
    for (std::size_t row = 0; row < input_.rows; ++row) {
      const float* const weights = &input_.weights[row * input_.columns];
      const std::int32_t* const ranks = &ranks_[row * input_.columns];
      float* const masked = &masked_[row * input_.columns];
      const std::int32_t count = counts[row];
      for (std::size_t column = 0; column < input_.columns; ++column) masked[column] = ranks[column] < count ? 0.0F : weights[column];
    }
    multiply(masked_.data(), pruned_);
    const auto cosine = [](double dot, double a, double b) { return dot / ((std::sqrt(a) + 1e-8) * (std::sqrt(b) + 1e-8)); };
    Evaluation evaluation;
    double sums[3] = {};
    for (std::size_t row = 0; row < input_.rows; ++row) {
      constexpr std::size_t kLanes = 16;
      double lanes[3][kLanes] = {};
      const float* const dense = &dense_[row * input_.samples];
      const float* const pruned = &pruned_[row * input_.samples];
      for (std::size_t begin = 0; begin < input_.samples; begin += kLanes) {
        const std::size_t width = std::min(kLanes, input_.samples - begin);
        for (std::size_t lane = 0; lane < width; ++lane) {
          const double y = static_cast<double>(dense[begin + lane]);
          const double p = static_cast<double>(pruned[begin + lane]);
          lanes[0][lane] += y * p;
          lanes[1][lane] += y * y;
          lanes[2][lane] += p * p;
        }
      }
      double row_sums[3] = {};
      for (std::size_t i = 0; i < 3; ++i) {
        for (const double lane : lanes[i]) row_sums[i] += lane;
        sums[i] += row_sums[i];
      }
      evaluation.row_qualities.push_back(cosine(row_sums[0], row_sums[1], row_sums[2]));
    }
    evaluation.layer_quality = cosine(sums[0], sums[1], sums[2]);
    return evaluation;
  }

 private:
  void multiply(const float* weights, std::vector<float>& output) {
    cpu::multiply_transposed(input_.rows, input_.samples, input_.columns, 1.0F, weights, input_.columns, input_.quality_inputs.data(),
                             input_.columns, output.data(), input_.samples);
  }

  const AllocationInput& input_;
  std::vector<std::int32_t> ranks_;
  std::vector<float> masked_;
  std::vector<float> dense_;
  std::vector<float> pruned_;
};

void print(const std::vector<PhaseTiming>& phases) {
  std::printf("{");
  const char* separator = "";
  for (const PhaseTiming& phase : phases) {
    std::printf("%s\"%s\": %.2f", separator, phase.phase.c_str(), static_cast<double>(phase.busy_ns) * 1e-6);
    separator = ", ";
  }
  std::printf("}");
}

double milliseconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

void run(std::size_t rows, std::size_t columns, std::size_t samples, int repeats) {
  const Problem problem = make_problem(rows, columns, samples);
  const AllocationInput input{.rows = rows,
                              .columns = columns,
                              .samples = samples,
                              .weights = problem.weights,
                              .mean_squares = problem.mean_squares,
                              .quality_inputs = problem.quality_inputs,
                              .target_sparsity = 0.7};
  const AllocationOptions options;
  ThreadPool pool(1);
  double engine_ms = 1e300;
  double peer_ms = 1e300;
  AllocatedRows engine;
  ReferenceRows peer;
  std::vector<PhaseTiming> phases;
  AllocatedRows optimal;
  double optimal_ms = 1e300;
  std::vector<PhaseTiming> optimal_phases;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    auto begin = std::chrono::steady_clock::now();
    CallContext context;
    engine = allocate_rows(input, options, pool, context);
    const double once = milliseconds_since(begin);
    if (once < engine_ms) phases = context.phases();
    engine_ms = std::min(engine_ms, once);

    begin = std::chrono::steady_clock::now();
    CallContext optimal_context;
    optimal = allocate_rows(input, {.allocation = Allocation::kOptimal}, pool, optimal_context);
    const double optimal_once = milliseconds_since(begin);
    if (optimal_once < optimal_ms) optimal_phases = optimal_context.phases();
    optimal_ms = std::min(optimal_ms, optimal_once);

    begin = std::chrono::steady_clock::now();
    MaskedProduct product(input);
    peer = search_by_evaluation(rows, columns, input.target_sparsity, options,
                                [&](const std::vector<std::int32_t>& counts) { return product.evaluate(counts); });
    peer_ms = std::min(peer_ms, milliseconds_since(begin));
  }
  std::size_t differing = 0;
  for (std::size_t row = 0; row < rows; ++row) differing += engine.dropped_per_row[row] != peer.dropped_per_row[row];
  std::printf(
      "{\"rows\": %zu, \"columns\": %zu, \"samples\": %zu, \"steps\": %zu, \"engine_ms\": %.2f, \"masked_products_ms\": %.2f, \"ratio\": "
      "%.1f",
      rows, columns, samples, engine.steps.size(), engine_ms, peer_ms, peer_ms / engine_ms);
  std::printf(", \"learning_rate\": [%g, %g], \"rows_that_differ\": %zu, \"phases_ms\": ", engine.learning_rate.value_or(0),
              peer.learning_rate.value_or(0), differing);
  print(phases);
  std::printf(", \"quality\": [%.6f, %.6f], \"optimal_ms\": %.2f, \"optimal_quality\": %.6f, \"optimal_phases_ms\": ",
              engine.baseline_quality, engine.best_quality, optimal_ms, optimal.best_quality);
  print(optimal_phases);
  std::printf("}\n");
}

}  // namespace
}  // namespace secateur::test

int main(int argc, char** argv) {
  const auto argument = [&](int index, long fallback) { return argc > index ? std::strtol(argv[index], nullptr, 10) : fallback; };
  secateur::test::run(static_cast<std::size_t>(argument(1, 1024)), static_cast<std::size_t>(argument(2, 1024)),
                      static_cast<std::size_t>(argument(3, 256)), static_cast<int>(argument(4, 5)));
  return 0;
}
