#include "cuda/block_metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "common/shard_layout.h"
#include "cpu/allocation/checked_input.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/lowest_scores.h"
#include "cuda/kernels/score_ranks.h"
#include "cuda/kernels/squared_distance.h"
#include "cuda/lowest_scores_memory.h"
#include "cuda/transfers.h"
#include "cuda/widened_matrix.h"

namespace secateur::gpu {

namespace {

constexpr std::uint32_t kInfinityBits = 0x7f800000U;

// Waits for what is queued.
template <class T>
std::vector<T> read(const DeviceBuffer<T>& from, const Stream& stream) {
  std::vector<T> values(from.size());
  download(from.data(), values, stream, "reading scores");
  stream.synchronize("Reading scores");
  return values;
}

// The scores |W| · √mean_squares of a projection.
class ProjectionScores {
 public:
  static std::uint64_t bytes(const TensorLayout& tensor, Compute compute) {
    return WidenedMatrix::bytes(tensor, compute) + block_bytes<float>(tensor.shape[1]);
  }

  ProjectionScores(const DeviceMatrix& matrix, const std::vector<float>& scales, SessionMemory& memory, const Stream& stream)
      : weights_(matrix, memory, stream),
        scales_(memory, scales.size(), "scores"),
        view_{matrix.rows, matrix.columns, weights_.values(), scales_.data()} {
    upload(scales, scales_.data(), stream, "uploading what scores are made of");
  }

  const ScoredWeights& view() const noexcept { return view_; }
  double values() const noexcept { return static_cast<double>(view_.rows * view_.columns); }

 private:
  WidenedMatrix weights_;
  DeviceBuffer<float> scales_;
  ScoredWeights view_;
};

struct Scored {
  const DeviceMatrix* matrix;
  std::vector<float> scales;
};

std::vector<Scored> scored_by(DeviceShard& block, std::span<const ProjectionInputSquares> projections) {
  std::vector<Scored> scored;
  for (const ProjectionInputSquares& input : projections) {
    const DeviceMatrix& matrix = block.matrix(input.projection);
    scored.push_back({&matrix, allocation::wanda_scales(input.mean_squares, matrix.columns)});
  }
  return scored;
}

// Results of a call per row of a projection, on the host.
template <class Result, class Queue>
std::vector<Result> for_rows(const Scored& scored, SessionMemory& memory, const Stream& stream, Timeline& timeline, CallContext& context,
                             const Queue& queue) {
  context.check();
  const ProjectionScores scores(*scored.matrix, scored.scales, memory, stream);
  DeviceBuffer<Result> results(memory, scored.matrix->rows, "scores of rows");
  timeline.begin("scores", 2 * scores.values(), 4 * scores.values());
  check(queue(scores.view(), results.data()), "scores of rows");
  return read(results, stream);
}

// A projection without its lowest scores, in what products take.
class PrunedMatrix {
 public:
  static std::uint64_t bytes(const TensorLayout& tensor, Compute compute) {
    const std::uint64_t elements = elements_of(tensor);
    return is_narrow(compute) ? block_bytes<std::uint16_t>(elements) : block_bytes<float>(elements);
  }
  // While it is made.
  static std::uint64_t scratch_bytes(const TensorLayout& tensor, Compute compute) {
    const std::uint64_t wide = is_narrow(compute) ? block_bytes<float>(elements_of(tensor)) : 0;
    return ProjectionScores::bytes(tensor, compute) + LowestScoresMemory::bytes(tensor.shape[0]) + wide;
  }

  PrunedMatrix(const Scored& scored, double sparsity, Compute compute, SessionMemory& memory, const Stream& stream, Timeline& timeline,
               CallContext& context) {
    context.check();
    const std::size_t size = scored.matrix->rows * scored.matrix->columns;
    if (is_narrow(compute)) {
      narrowed_ = DeviceBuffer<std::uint16_t>(memory, size, "a pruned projection");
    } else {
      values_ = DeviceBuffer<float>(memory, size, "a pruned projection");
    }
    const ProjectionScores scores(*scored.matrix, scored.scales, memory, stream);
    timeline.begin("scores", 8 * scores.values(), 28 * scores.values());
    const auto count = static_cast<std::uint64_t>(sparsity * static_cast<double>(size));
    LowestScoresMemory lowest(memory, scored.matrix->rows);
    DeviceBuffer<float> wide(memory, narrowed_.size(), "a pruned projection");
    float* const rest = wide.empty() ? values_.data() : wide.data();
    check(find_lowest(scores.view(), count, EqualScores::kFirst, lowest.from(), stream.get()), "the lowest scores");
    check(drop_lowest(scores.view(), lowest.from(), rest, stream.get()), "pruning a projection");
    if (!wide.empty()) check(narrow(compute, wide.data(), narrowed_.data(), wide.size(), stream.get()), "narrowing a pruned projection");
    timeline.finish(context, "Pruning a projection");
  }

  // The matrix with these values in place of its own, where products look.
  DeviceMatrix in_place_of(DeviceMatrix matrix) {
    if (!values_.empty()) matrix.values = {values_.data(), values_.size()};
    if (!narrowed_.empty()) matrix.narrowed = {narrowed_.data(), narrowed_.size()};
    return matrix;
  }

 private:
  DeviceBuffer<float> values_;
  DeviceBuffer<std::uint16_t> narrowed_;
};

// Puts a matrix in the place of another as long as it lives.
class Replacement {
 public:
  Replacement(DeviceMatrix& place, const DeviceMatrix& other) : place_(place), own_(std::exchange(place, other)) {}
  ~Replacement() { place_ = own_; }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

 private:
  DeviceMatrix& place_;
  DeviceMatrix own_;
};

}  // namespace

OutlierCount count_outliers(DeviceShard& block, std::span<const ProjectionInputSquares> projections, double threshold,
                            SessionMemory& memory, const Stream& stream, Timeline& timeline, CallContext& context) {
  if (!(threshold > 0)) throw Error(ErrorCode::kInvalidArgument, "threshold must be above 0.");
  const std::vector<Scored> scored = scored_by(block, projections);
  OutlierCount count;
  for (const Scored& one : scored) count.weights += one.matrix->rows * one.matrix->columns;
  if (count.weights == 0) throw Error(ErrorCode::kInvalidArgument, "There are no weights to count outliers of.");
  double sum = 0;
  for (const Scored& one : scored) {
    const auto queue = [&](const ScoredWeights& scores, double* sums) { return sum_scores(scores, sums, stream.get()); };
    for (const double of_row : for_rows<double>(one, memory, stream, timeline, context, queue)) sum += of_row;
  }
  count.mean_score = sum / static_cast<double>(count.weights);
  const auto limit = static_cast<float>(count.mean_score * threshold);
  const std::uint32_t lowest = __builtin_bit_cast(std::uint32_t, limit) + 1;
  for (const Scored& one : scored) {
    const auto queue = [&](const ScoredWeights& scores, std::uint32_t* counts) {
      return count_keys(scores, lowest, kInfinityBits, counts, stream.get());
    };
    for (const std::uint32_t of_row : for_rows<std::uint32_t>(one, memory, stream, timeline, context, queue)) count.outliers += of_row;
  }
  timeline.finish(context, "Counting outliers");
  return count;
}

std::vector<BlockSensitivity> measure_sensitivity(BlockRunner& blocks, DeviceShard& block, std::span<const std::uint32_t> groups,
                                                  const std::function<DeviceGroup(std::uint32_t)>& find_group,
                                                  std::span<const ProjectionInputSquares> projections, double sparsity, Compute compute,
                                                  const Architecture& architecture, SessionMemory& memory, const Stream& stream,
                                                  Timeline& timeline, CallContext& context) {
  if (!(sparsity > 0 && sparsity < 1)) throw Error(ErrorCode::kInvalidArgument, "sparsity must be above 0 and below 1.");
  // All at once, so that the hidden states of each group pass through the device once.
  std::vector<PrunedMatrix> pruned;
  for (const Scored& scored : scored_by(block, projections)) {
    pruned.emplace_back(scored, sparsity, compute, memory, stream, timeline, context);
  }
  const auto measure_group = [&](std::uint32_t index) {
    const DeviceGroup group = find_group(index);
    const std::size_t size = group.tokens.ids.size() * architecture.hidden_size;
    DeviceBuffer<float> dense(memory, size, "the output of a block");
    DeviceBuffer<float> changed(memory, size, "the output of a pruned block");
    DeviceBuffer<double> sums(memory, distance_parts(size), "how far an output moves");
    const auto distance = [&](const float* output, const float* other) {
      timeline.begin("scores", 3 * static_cast<double>(size), 8 * static_cast<double>(size));
      check(squared_distance(output, other, size, sums.data(), stream.get()), "how far an output moves");
      const std::vector<double> parts = read(sums, stream);
      return std::accumulate(parts.begin(), parts.end(), 0.0);
    };
    blocks.run_into(block, group, dense.data(), false, context);
    BlockSensitivity sensitivity{distance(dense.data(), nullptr), {}};
    for (std::size_t place = 0; place < pruned.size(); ++place) {
      DeviceMatrix& matrix = block.matrix(projections[place].projection);
      const Replacement replacement(matrix, pruned[place].in_place_of(matrix));
      blocks.run_into(block, group, changed.data(), false, context);
      sensitivity.errors.push_back(distance(changed.data(), dense.data()));
    }
    timeline.finish(context, "Measuring how far an output moves");
    return sensitivity;
  };
  std::vector<BlockSensitivity> sensitivities;
  for (const std::uint32_t index : groups) sensitivities.push_back(measure_group(index));
  return sensitivities;
}

std::uint64_t outlier_bytes(std::span<const TensorLayout> block, Compute compute) {
  std::uint64_t most = 0;
  for (const TensorLayout& tensor : block) {
    if (!is_multiplied(tensor.role)) continue;
    most = std::max(most, ProjectionScores::bytes(tensor, compute) + block_bytes<double>(tensor.shape[0]));
  }
  return most;
}

std::uint64_t sensitivity_bytes(const Architecture& architecture, std::span<const TensorLayout> block, Compute compute,
                                std::size_t tokens) {
  std::uint64_t pruned = 0;
  std::uint64_t scratch = 0;
  for (const TensorLayout& tensor : block) {
    if (!is_multiplied(tensor.role)) continue;
    pruned += PrunedMatrix::bytes(tensor, compute);
    scratch = std::max(scratch, PrunedMatrix::scratch_bytes(tensor, compute));
  }
  const std::size_t values = tokens * architecture.hidden_size;
  return pruned + std::max(scratch, 2 * block_bytes<float>(values) + block_bytes<double>(distance_parts(values)));
}

}  // namespace secateur::gpu
