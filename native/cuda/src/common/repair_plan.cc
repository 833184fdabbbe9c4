#include "common/repair_plan.h"

namespace secateur {

std::uint64_t gram_matrices(const Workload& workload) { return workload.swaps ? 2 : 1; }

std::vector<InputSites> gram_passes(const Workload& workload) {
  if (!workload.masked_in_stages) return {InputSites::all()};
  return {{InputSite::kAttentionInput}, {InputSite::kAttentionOutput}, {InputSite::kFeedForwardInput}, {InputSite::kFeedForwardHidden}};
}

ProductShape repair_input_shape(const Workload& workload, const TensorLayout& projection) {
  const std::size_t rows = projection.shape[0];
  const std::size_t columns = projection.shape[1];
  if (!workload.dense_targets) return gram_shape(columns);
  const bool added = projection.role == TensorRole::kOutputWeight || projection.role == TensorRole::kDownWeight;
  return {columns + (added ? rows : 0), columns};
}

std::uint64_t repair_input_bytes(const Workload& workload, const TensorLayout& projection) {
  const std::uint64_t columns = projection.shape[1];
  const std::uint64_t drift_rows = workload.dense_targets ? repair_input_shape(workload, projection).rows : 0;
  return (gram_matrices(workload) * columns + drift_rows) * columns * sizeof(float);
}

}  // namespace secateur
