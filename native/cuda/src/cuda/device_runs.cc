#include "cuda/device_runs.h"

#include <algorithm>
#include <vector>

#include "cuda/transfers.h"

namespace secateur::gpu {

namespace {

// Steps that are queued before the host waits, so that a call with many of them can be cancelled.
constexpr std::size_t kStepsAtOnce = 128;

constexpr const char* kPurpose = "the search of an allocation";

}  // namespace

DeviceRuns::CandidateBuffers::CandidateBuffers(SessionMemory& memory, std::size_t rows)
    : sparsities(memory, rows, kPurpose), products(memory, rows, kPurpose), row_qualities(memory, rows, kPurpose) {}

std::uint64_t DeviceRuns::bytes(std::size_t rows) {
  const std::uint64_t candidate = block_bytes<float>(rows) + block_bytes<OutputProducts>(rows) + block_bytes<double>(rows);
  return 2 * candidate + block_bytes<float>(rows) + block_bytes<double>(1) + block_bytes<double>(rows) + block_bytes<double>(kStepsAtOnce);
}

DeviceRuns::DeviceRuns(const RowCurves& curves, float target, SessionMemory& memory, const Stream& stream, Timeline& timeline,
                       CallContext& context)
    : curves_(curves),
      target_(target),
      stream_(stream),
      timeline_(timeline),
      context_(context),
      uniform_(memory, curves.rows),
      current_(memory, curves.rows),
      best_sparsities_(memory, curves.rows, kPurpose),
      best_quality_(memory, 1, kPurpose),
      moves_(memory, curves.rows, kPurpose),
      qualities_(memory, kStepsAtOnce, kPurpose) {}

allocation::Candidate DeviceRuns::measure_uniform() {
  allocation::Candidate uniform{.sparsities = std::vector<float>(curves_.rows, target_),
                                .row_qualities = std::vector<double>(curves_.rows)};
  begin_phase(1);
  upload(uniform.sparsities, uniform_.sparsities.data(), stream_, "uploading sparsities");
  measure(uniform_.view());
  move(uniform_.view(), 0, best_quality_.data(), true);
  download(uniform_.row_qualities.data(), std::span(uniform.row_qualities), stream_, "reading a search");
  download(best_quality_.data(), std::span(&uniform.quality, 1), stream_, "reading a search");
  timeline_.finish(context_, "Measuring the uniform start");
  uniform.cosine_variance = allocation::variance(uniform.row_qualities);
  return uniform;
}

void DeviceRuns::run(double learning_rate, std::span<double> qualities) {
  for (std::size_t done = 0; done < qualities.size(); done += kStepsAtOnce) {
    context_.check();
    const std::span<double> part = qualities.subspan(done, std::min(kStepsAtOnce, qualities.size() - done));
    begin_phase(part.size());
    // Nothing is better than itself: this only makes the first sparsities. The quality's place is the first step's, which comes later.
    if (done == 0) move(uniform_.view(), learning_rate, qualities_.data(), false);
    for (std::size_t step = 0; step < part.size(); ++step) {
      measure(current_.view());
      move(current_.view(), learning_rate, qualities_.data() + step, false);
    }
    download(qualities_.data(), part, stream_, "reading a search");
    timeline_.finish(context_, "Searching at a learning rate");
  }
}

allocation::Candidate DeviceRuns::best() {
  allocation::Candidate best{.sparsities = std::vector<float>(curves_.rows), .row_qualities = std::vector<double>(curves_.rows)};
  begin_phase(1);
  measure({best_sparsities_.data(), current_.products.data(), current_.row_qualities.data()});
  download(best_sparsities_.data(), std::span(best.sparsities), stream_, "reading a search");
  download(current_.row_qualities.data(), std::span(best.row_qualities), stream_, "reading a search");
  download(best_quality_.data(), std::span(&best.quality, 1), stream_, "reading a search");
  timeline_.finish(context_, "Reading the best candidate");
  best.cosine_variance = allocation::variance(best.row_qualities);
  return best;
}

void DeviceRuns::begin_phase(std::size_t steps) {
  constexpr std::size_t kSectorBytes = 32;
  // Measuring: a sparsity, a norm, a point, the results. Moving: the results, the moves twice, the sparsities three times.
  constexpr std::size_t kResultBytes = sizeof(OutputProducts) + sizeof(double);
  constexpr std::size_t kRowBytes = 2 * kResultBytes + sizeof(double) + kSectorBytes + 2 * sizeof(double) + 5 * sizeof(float);
  const auto rows = static_cast<double>(steps * curves_.rows);
  timeline_.begin("search", 30 * rows, static_cast<double>(kRowBytes) * rows);
}

void DeviceRuns::measure(const DeviceCandidate& candidate) { check(measure_rows(curves_, candidate, stream_.get()), "measuring rows"); }

void DeviceRuns::move(const DeviceCandidate& candidate, double learning_rate, double* quality, bool is_first) {
  check(move_rows({curves_.rows, target_, learning_rate, candidate, quality, is_first, best_quality_.data(), best_sparsities_.data(),
                   moves_.data(), current_.sparsities.data()},
                  stream_.get()),
        "moving sparsities");
}

}  // namespace secateur::gpu
