#include "cuda/kernels/cross_entropy.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarpLanes;

struct WarpResults {
  float maxima[kWarps];
  double sums[kWarps];
};

__global__ void __launch_bounds__(kThreads) accumulate_kernel(CrossEntropyTask task) {
  SECATEUR_SHARED(WarpResults, results);
  const std::size_t token = blockIdx.x;
  const float* const logits = task.logits + token * task.words;
  const unsigned warp = threadIdx.x / kWarpLanes;
  // NaN must not be lost: a comparison with it is false, so it takes the place of the largest.
  float maximum = logits[0];
  for (std::size_t word = threadIdx.x; word < task.words; word += kThreads) {
    const float logit = logits[word];
    if (!(logit <= maximum)) maximum = logit;
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, maximum, distance);
    if (!(other <= maximum)) maximum = other;
  }
  if (threadIdx.x % kWarpLanes == 0) results.maxima[warp] = maximum;
  __syncthreads();
  maximum = results.maxima[0];
  for (unsigned other = 1; other < kWarps; ++other) {
    if (!(results.maxima[other] <= maximum)) maximum = results.maxima[other];
  }
  double sum = 0;
  for (std::size_t word = threadIdx.x; word < task.words; word += kThreads) sum += static_cast<double>(expf(logits[word] - maximum));
  sum = warp_sum(sum);
  if (threadIdx.x % kWarpLanes == 0) results.sums[warp] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned other = 1; other < kWarps; ++other) sum += results.sums[other];
  const double log_sum = static_cast<double>(maximum) + log(sum);
  if (task.first_word == 0) {
    task.log_sums[token] = log_sum;
  } else {
    const double before = task.log_sums[token];
    const double larger = before > log_sum ? before : log_sum;
    task.log_sums[token] = larger + log1p(exp(-fabs(before - log_sum)));
  }
  const auto next = static_cast<std::size_t>(task.next_ids[token]);
  if (next >= task.first_word && next < task.first_word + task.words) task.next_logits[token] = logits[next - task.first_word];
}

}  // namespace

cudaError_t accumulate_cross_entropy(const CrossEntropyTask& task, cudaStream_t stream) {
  if (task.tokens == 0 || task.words == 0) return cudaSuccess;
  return launch(accumulate_kernel, dim3(static_cast<unsigned>(task.tokens)), dim3(kThreads), 0, stream, task);
}

}  // namespace secateur::gpu
