#include "masked_quality.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "candidate.h"
#include "cpu/gemm.h"
#include "quality.h"
#include "secateur/error.h"
#include "secateur/thread_pool.h"

namespace secateur::allocation {
namespace {

// Products are cut the same way whatever the number of threads, so that their sums are too.
constexpr std::size_t kTileRows = 64;

// One thread's memory for a tile of rows.
struct Workspace {
  Workspace(std::size_t columns, std::size_t samples)
      : masked(kTileRows * columns), dense_outputs(kTileRows * samples), outputs(kTileRows * samples) {}
  static std::uint64_t bytes(std::size_t columns, std::size_t samples) { return kTileRows * (columns + 2 * samples) * sizeof(float); }

  std::vector<float> masked;
  std::vector<float> dense_outputs;
  std::vector<float> outputs;
};

OutputProducts compare(std::span<const float> dense, std::span<const float> pruned) {
  OutputProducts products;
  for (std::size_t sample = 0; sample < dense.size(); ++sample) {
    const auto y = static_cast<double>(dense[sample]);
    const auto p = static_cast<double>(pruned[sample]);
    products.inner_product += y * p;
    products.dense_squared_norm += y * y;
    products.pruned_squared_norm += p * p;
  }
  return products;
}

}  // namespace

void measure_mask(const AllocationInput& input, ThreadPool& pool, CallContext& context, AllocatedRows& rows) {
  const std::size_t columns = input.columns;
  const std::size_t samples = input.samples;
  const std::size_t mask_bytes = (columns + 7) / 8;
  std::vector<OutputProducts> products(input.rows);
  std::vector<std::unique_ptr<Workspace>> workspaces(pool.size());
  pool.parallel_for((input.rows + kTileRows - 1) / kTileRows, [&](std::size_t tile, std::size_t worker) {
    context.check();
    if (!workspaces[worker]) workspaces[worker] = std::make_unique<Workspace>(columns, samples);
    Workspace& workspace = *workspaces[worker];
    const std::size_t first = tile * kTileRows;
    const std::size_t count = std::min(kTileRows, input.rows - first);
    const auto values = static_cast<double>(count * columns);
    const PhaseScope scope(context, "gemm", 4 * values * static_cast<double>(samples), 2 * sizeof(float) * values);
    const float* const weights = input.weights.data() + first * columns;
    for (std::size_t row = 0; row < count; ++row) {
      const std::uint8_t* const mask = &rows.mask[(first + row) * mask_bytes];
      for (std::size_t column = 0; column < columns; ++column) {
        const bool dropped = (mask[column / 8] >> column % 8 & 1U) != 0;
        workspace.masked[row * columns + column] = dropped ? 0.0F : weights[row * columns + column];
      }
    }
    const auto multiply = [&](const float* matrix, std::vector<float>& outputs) {
      cpu::multiply_transposed(count, samples, columns, 1.0F, matrix, columns, input.quality_inputs.data(), columns, outputs.data(),
                               samples);
    };
    multiply(weights, workspace.dense_outputs);
    multiply(workspace.masked.data(), workspace.outputs);
    for (std::size_t row = 0; row < count; ++row) {
      const auto of_row = [&](const std::vector<float>& outputs) { return std::span(outputs).subspan(row * samples, samples); };
      products[first + row] = compare(of_row(workspace.dense_outputs), of_row(workspace.outputs));
    }
  });

  judge_mask(products, rows);
}

void judge_mask(std::span<const OutputProducts> products, AllocatedRows& rows) {
  OutputProducts layer;
  std::vector<double> row_qualities(products.size());
  for (std::size_t row = 0; row < products.size(); ++row) {
    if (!std::isfinite(products[row].dense_squared_norm)) {
      throw Error(ErrorCode::kNonFinite, "The output of row " + std::to_string(row) + " is not finite.");
    }
    layer.add(products[row]);
    row_qualities[row] = cosine(products[row]);
  }
  rows.baseline_quality = rows.best_quality = cosine(layer);
  rows.variance_before = rows.variance_after = variance(row_qualities);
  rows.steps.push_back({.learning_rate = 0, .step = 0, .quality = rows.baseline_quality});
}

std::uint64_t masked_quality_bytes(std::size_t rows, std::size_t columns, std::size_t samples, std::size_t threads) {
  return rows * (sizeof(OutputProducts) + sizeof(double)) + threads * Workspace::bytes(columns, samples);
}

}  // namespace secateur::allocation
