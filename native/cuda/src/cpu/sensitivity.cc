#include "cpu/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "cpu/allocation/checked_input.h"
#include "cpu/repair/lowest.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kRows = 64;
// Values of an output that are summed up by themselves.
constexpr std::size_t kPart = std::size_t{1} << 16;

std::size_t mask_bytes(std::size_t rows, std::size_t columns) { return rows * ((columns + 7) / 8); }

// The weight without its lowest scores, whatever their row.
Matrix without_lowest(const Matrix& dense, const std::vector<float>& scales, double sparsity, MemoryBudget& budget, ThreadPool& pool,
                      CallContext& context) {
  const std::size_t size = dense.rows * dense.columns;
  Matrix pruned{dense.rows, dense.columns, Buffer<float>(budget, size, "a pruned projection")};
  const auto for_panels = [&](auto visit) {
    pool.parallel_for((dense.rows + kRows - 1) / kRows, [&](std::size_t panel, std::size_t) {
      context.check();
      const std::size_t first = panel * kRows;
      const std::size_t end = std::min(dense.rows, first + kRows);
      const PhaseScope scope(context, "scores", 0, static_cast<double>((end - first) * dense.columns * 2 * sizeof(float)));
      for (std::size_t row = first; row < end; ++row)
        visit(row, dense.values.data() + row * dense.columns, pruned.values.data() + row * dense.columns);
    });
  };
  for_panels([&](std::size_t, const float* weights, float* scores) {
    for (std::size_t column = 0; column < dense.columns; ++column) scores[column] = std::abs(weights[column]) * scales[column];
  });
  Buffer<std::uint8_t> mask(budget, mask_bytes(dense.rows, dense.columns), "the mask of a pruned projection");
  const auto dropped = static_cast<std::size_t>(sparsity * static_cast<double>(size));
  mark_lowest(pruned.values.span(), dense.columns, find_lowest(pruned.values.span(), dropped, pool), pool, mask.data());
  const std::size_t row_bytes = mask_bytes(1, dense.columns);
  for_panels([&](std::size_t row, const float* weights, float* values) {
    const std::uint8_t* const bits = mask.data() + row * row_bytes;
    for (std::size_t column = 0; column < dense.columns; ++column) {
      values[column] = (bits[column / 8] >> column % 8 & 1U) != 0 ? 0.0F : weights[column];
    }
  });
  return pruned;
}

// Puts a projection in the place of another as long as it lives.
class Replacement {
 public:
  Replacement(Projection& place, Projection other) : place_(place), other_(std::move(other)) { std::swap(place_, other_); }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;
  Replacement(Replacement&&) = delete;
  Replacement& operator=(Replacement&&) = delete;
  ~Replacement() { std::swap(place_, other_); }

 private:
  Projection& place_;
  Projection other_;
};

// In float64, part by part in order, whatever the threads. `other`: null for zeros.
double squared_distance(const float* values, const float* other, std::size_t size, ThreadPool& pool, CallContext& context) {
  std::vector<double> sums((size + kPart - 1) / kPart);
  pool.parallel_for(sums.size(), [&](std::size_t part, std::size_t) {
    context.check();
    const std::size_t end = std::min(size, (part + 1) * kPart);
    double sum = 0;
    for (std::size_t i = part * kPart; i < end; ++i) {
      const double difference = static_cast<double>(values[i]) - (other == nullptr ? 0.0 : static_cast<double>(other[i]));
      sum += difference * difference;
    }
    sums[part] = sum;
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

std::vector<BlockSensitivity> measure_sensitivity(BlockRunner& blocks, Shard& block, std::span<const Group* const> groups,
                                                  std::span<const ProjectionInputSquares> projections, double sparsity,
                                                  const Architecture& architecture, Compute compute, MemoryBudget& budget, ThreadPool& pool,
                                                  CallContext& context) {
  if (!(sparsity > 0 && sparsity < 1)) throw Error(ErrorCode::kInvalidArgument, "sparsity must be above 0 and below 1.");
  // Outputs are compared as they are computed, whatever hidden states are kept in.
  const auto output_of = [&](const Group& group, const char* purpose) {
    StateBuffer output(HiddenStates::kF32, budget, group.tokens.ids.size() * architecture.hidden_size, purpose);
    blocks.run_into(block, group, output, context);
    return output;
  };
  const auto distance = [&](const Group& group, const StateBuffer& output, const StateBuffer* other) {
    const std::size_t size = group.tokens.ids.size() * architecture.hidden_size;
    return squared_distance(output.read(0, size, nullptr), other == nullptr ? nullptr : other->read(0, size, nullptr), size, pool, context);
  };
  std::vector<StateBuffer> dense;
  std::vector<BlockSensitivity> sensitivities;
  for (const Group* const group : groups) {
    dense.push_back(output_of(*group, "the output of a block"));
    sensitivities.push_back({distance(*group, dense.back(), nullptr), {}});
  }
  for (const ProjectionInputSquares& input : projections) {
    Projection& projection = block.projection(input.projection);
    const Matrix& weight = projection.dense();
    Matrix rest = without_lowest(weight, allocation::wanda_scales(input.mean_squares, weight.columns), sparsity, budget, pool, context);
    const Replacement replacement(projection, Projection(input.projection, std::move(rest), compute, budget, pool, context));
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const StateBuffer pruned = output_of(*groups[i], "the output of a pruned block");
      sensitivities[i].errors.push_back(distance(*groups[i], dense[i], &pruned));
    }
  }
  return sensitivities;
}

std::uint64_t pruned_projection_bytes(const ProjectionForm& pruned, double sparsity) {
  const std::uint64_t weight = pruned.rows * pruned.columns * sizeof(float);
  // The mask is gone when the weight gets the form it is multiplied in.
  return std::max(Projection::bytes(pruned, sparsity), weight + mask_bytes(pruned.rows, pruned.columns));
}

std::uint64_t compared_output_bytes(const Architecture& architecture, std::size_t tokens) {
  return StateBuffer::bytes(HiddenStates::kF32, tokens * architecture.hidden_size);
}

}  // namespace secateur::cpu
