#include "cuda/kernels/quality_curves.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kRowsPerBlock = 4;
constexpr unsigned kFinishThreads = 256;

// The part of a row that one lane holds: samples lane, lane + 32, …; zeros beyond the last sample.
template <int SamplesPerLane>
struct LaneSamples {
  double values[SamplesPerLane];
};

template <int SamplesPerLane>
__device__ LaneSamples<SamplesPerLane> load_samples(const float* vector, std::size_t samples, unsigned lane) {
  LaneSamples<SamplesPerLane> loaded;
#pragma unroll
  for (int i = 0; i < SamplesPerLane; ++i) {
    const std::size_t sample = static_cast<std::size_t>(i) * kWarpLanes + lane;
    loaded.values[i] = sample < samples ? static_cast<double>(vector[sample]) : 0.0;
  }
  return loaded;
}

__device__ inline float residual_of(double a, double b) {
  const double residual = b - a * a;
  return residual > 0 ? static_cast<float>(residual) : 0.0F;
}

__device__ inline double unit_of(double dense_squared_norm) { return dense_squared_norm > 0 ? dense_squared_norm : 1.0; }

// The point where the weights that are dropped, or those that are kept, make the sums a and b, in units of the dense squared norm.
__device__ inline CurvePoint point_of(bool kept, double a, double b, bool silent) {
  if (kept) return {static_cast<float>(a), residual_of(a, b)};
  return {silent ? 0.0F : static_cast<float>(1 - a), residual_of(a, b)};
}

// Sums of `Count` values over the lanes of a warp; every lane gets one of them: the value at its lane · Count / 32. Fewer shuffles than a
// sum of each value by itself: what a lane does not get, it hands on.
template <int Count, int Distance = static_cast<int>(kWarpLanes) / 2>
__device__ inline double spread_sums(double (&values)[Count], unsigned lane) {
  if constexpr (Distance == 0) {
    static_assert(Count == 1, "a lane gets one value");
    return values[0];
  } else if constexpr (Count == 1) {
    double sum[1] = {values[0] + __shfl_xor_sync(kAllLanes, values[0], Distance)};
    return spread_sums<1, Distance / 2>(sum, lane);
  } else {
    const bool keeps_upper = (lane & static_cast<unsigned>(Distance)) != 0;
    double kept[Count / 2];
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
      const double handed_on = keeps_upper ? values[i] : values[i + Count / 2];
      kept[i] = (keeps_upper ? values[i + Count / 2] : values[i]) + __shfl_xor_sync(kAllLanes, handed_on, Distance);
    }
    return spread_sums<Count / 2, Distance / 2>(kept, lane);
  }
}

// Weights whose sums are made together: those of many samples leave fewer registers.
template <int SamplesPerLane>
constexpr int kBatchSteps = SamplesPerLane <= 8    ? 16
                            : SamplesPerLane <= 16 ? 8
                                                   : 2;

// One warp sweeps one row from both ends of its order (docs/algorithms.md). kPanels: this is one of several panels of samples, from
// first_sample on, whose sums are added up; finish_points makes points of them.
template <int SamplesPerLane, bool kPanels>
__global__ void __launch_bounds__(kWarpLanes* kRowsPerBlock, SamplesPerLane == 32 ? 2 : 0)
    sweep_rows(QualityCurvesTask task, std::size_t first_sample) {
  constexpr int kBatch = kBatchSteps<SamplesPerLane>;
  // Neighbours that get the same sum.
  constexpr unsigned kLanesPerSum = kWarpLanes / (2 * kBatch);
  const unsigned lane = threadIdx.x;
  const std::size_t row = std::size_t{blockIdx.x} * kRowsPerBlock + threadIdx.y;
  // Whole warps leave together.
  if (row >= task.rows) return;
  const std::size_t samples = task.samples - first_sample;
  const float* const inputs = task.inputs + first_sample;
  const float* const weights = task.weights + row * task.columns;
  const std::uint32_t* const order = task.orders + row * task.columns;
  const std::size_t first_point = row * (task.columns + 1);
  CurvePoint* const points = task.points + first_point;

  const LaneSamples<SamplesPerLane> dense = load_samples<SamplesPerLane>(task.outputs + row * task.samples + first_sample, samples, lane);
  double squares = 0;
#pragma unroll
  for (int i = 0; i < SamplesPerLane; ++i) squares += dense.values[i] * dense.values[i];
  const double dense_squared_norm = warp_sum(squares);
  const bool silent = !(dense_squared_norm > 0);
  const double inverse_unit = kPanels ? 1.0 : 1.0 / unit_of(dense_squared_norm);
  if (lane == 0) {
    if (kPanels) {
      task.dense_squared_norms[row] = first_sample == 0 ? dense_squared_norm : task.dense_squared_norms[row] + dense_squared_norm;
    } else {
      task.dense_squared_norms[row] = dense_squared_norm;
      points[0] = {silent ? 0.0F : 1.0F, 0.0F};
      points[task.columns] = {0.0F, 0.0F};
    }
  }

  const std::size_t last_dropped_count = task.columns / 2;
  for (int side = 0; side < 2; ++side) {
    const bool kept = side == 1;
    const std::size_t steps = kept ? task.columns - last_dropped_count - 1 : last_dropped_count;
    LaneSamples<SamplesPerLane> sum = {};
    // In the lanes of the lower half the sum with the dense output so far, in those of the upper the squared norm.
    double total = 0;
    for (std::size_t first_step = 0; first_step < steps; first_step += kBatch) {
      // A lane fetches a weight of the batch. What lies behind the last step weighs nothing.
      const std::size_t fetched = first_step + lane % kBatch;
      const bool inside = fetched < steps;
      const std::uint32_t own_column = inside ? order[kept ? task.columns - 1 - fetched : fetched] : 0;
      const float own_weight = inside ? weights[own_column] : 0.0F;
      double parts[2 * kBatch];
#pragma unroll
      for (int step = 0; step < kBatch; ++step) {
        const std::size_t column = __shfl_sync(kAllLanes, own_column, step);
        const double weight = static_cast<double>(__shfl_sync(kAllLanes, own_weight, step));
        const LaneSamples<SamplesPerLane> x = load_samples<SamplesPerLane>(inputs + column * task.samples, samples, lane);
        double with_sum = 0;
        double with_dense = 0;
        double square = 0;
#pragma unroll
        for (int i = 0; i < SamplesPerLane; ++i) {
          with_sum += sum.values[i] * x.values[i];
          with_dense += dense.values[i] * x.values[i];
          square += x.values[i] * x.values[i];
          sum.values[i] += weight * x.values[i];
        }
        parts[step] = weight * with_dense;
        parts[kBatch + step] = weight * (2 * with_sum + weight * square);
      }
      // From here on a lane has one of the two sums after one of the steps.
      double so_far = spread_sums(parts, lane) * inverse_unit;
      const unsigned step = lane / kLanesPerSum % kBatch;
#pragma unroll
      for (unsigned distance = 1; distance < kBatch; distance *= 2) {
        const double before = __shfl_up_sync(kAllLanes, so_far, distance * kLanesPerSum);
        if (step >= distance) so_far += before;
      }
      so_far += total;
      total = __shfl_sync(kAllLanes, so_far, lane | (kWarpLanes / 2 - 1));
      const double b = __shfl_down_sync(kAllLanes, so_far, kWarpLanes / 2);
      const std::size_t taken = first_step + step;
      if (lane < kWarpLanes / 2 && lane % kLanesPerSum == 0 && taken < steps) {
        const std::size_t count = kept ? task.columns - 1 - taken : taken + 1;
        if (kPanels) {
          CurveSums& sums = task.sums[first_point + count];
          sums = first_sample == 0 ? CurveSums{so_far, b} : CurveSums{sums.with_dense + so_far, sums.squared_norm + b};
        } else {
          points[count] = point_of(kept, so_far, b, silent);
        }
      }
    }
  }
}

// A block per row.
__global__ void __launch_bounds__(kFinishThreads) finish_points(QualityCurvesTask task) {
  const std::size_t row = blockIdx.x;
  const CurveSums* const sums = task.sums + row * (task.columns + 1);
  CurvePoint* const points = task.points + row * (task.columns + 1);
  const double dense_squared_norm = task.dense_squared_norms[row];
  const bool silent = !(dense_squared_norm > 0);
  const double inverse_unit = 1.0 / unit_of(dense_squared_norm);
  for (std::size_t count = threadIdx.x; count <= task.columns; count += blockDim.x) {
    CurvePoint point = {count == 0 && !silent ? 1.0F : 0.0F, 0.0F};
    if (count != 0 && count != task.columns) {
      const bool kept = count > task.columns / 2;
      point = point_of(kept, sums[count].with_dense * inverse_unit, sums[count].squared_norm * inverse_unit, silent);
    }
    points[count] = point;
  }
}

template <int SamplesPerLane, bool kPanels = false>
cudaError_t launch_sweep(const QualityCurvesTask& task, cudaStream_t stream, std::size_t first_sample = 0) {
  const auto blocks = static_cast<unsigned>((task.rows + kRowsPerBlock - 1) / kRowsPerBlock);
  return launch(sweep_rows<SamplesPerLane, kPanels>, dim3(blocks), dim3(kWarpLanes, kRowsPerBlock), 0, stream, task, first_sample);
}

cudaError_t sweep_panels(const QualityCurvesTask& task, cudaStream_t stream) {
  if (task.sums == nullptr) return cudaErrorInvalidValue;
  for (std::size_t first_sample = 0; first_sample < task.samples; first_sample += kCurvePanelSamples) {
    const cudaError_t error = launch_sweep<kCurvePanelSamples / kWarpLanes, true>(task, stream, first_sample);
    if (error != cudaSuccess) return error;
  }
  return launch(finish_points, dim3(static_cast<unsigned>(task.rows)), dim3(kFinishThreads), 0, stream, task);
}

}  // namespace

cudaError_t quality_curves(const QualityCurvesTask& task, cudaStream_t stream) {
  if (task.rows == 0 || task.columns == 0) return cudaSuccess;
  if (task.samples <= 1 * kWarpLanes) return launch_sweep<1>(task, stream);
  if (task.samples <= 2 * kWarpLanes) return launch_sweep<2>(task, stream);
  if (task.samples <= 4 * kWarpLanes) return launch_sweep<4>(task, stream);
  if (task.samples <= 8 * kWarpLanes) return launch_sweep<8>(task, stream);
  if (task.samples <= 16 * kWarpLanes) return launch_sweep<16>(task, stream);
  if (task.samples <= kCurvePanelSamples) return launch_sweep<kCurvePanelSamples / kWarpLanes>(task, stream);
  return sweep_panels(task, stream);
}

}  // namespace secateur::gpu
