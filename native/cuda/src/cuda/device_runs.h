// Runs of the search on the GPU: the steps of a run are queued one behind the other, and the host waits for them once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cpu/allocation/search.h"
#include "cuda/device_buffer.h"
#include "cuda/kernels/search_step.h"
#include "cuda/stream.h"

namespace secateur::gpu {

class DeviceRuns final : public allocation::SearchRuns {
 public:
  // Of device memory.
  static std::uint64_t bytes(std::size_t rows);

  // Keeps the references and the curves' pointers.
  DeviceRuns(const RowCurves& curves, float target, SessionMemory& memory, const Stream& stream, Timeline& timeline, CallContext& context);

  allocation::Candidate measure_uniform() override;
  void run(double learning_rate, std::span<double> qualities) override;
  allocation::Candidate best() override;

 private:
  // Device memory of a candidate.
  struct CandidateBuffers {
    CandidateBuffers(SessionMemory& memory, std::size_t rows);
    DeviceCandidate view() { return {sparsities.data(), products.data(), row_qualities.data()}; }

    DeviceBuffer<float> sparsities;
    DeviceBuffer<OutputProducts> products;
    DeviceBuffer<double> row_qualities;
  };

  void begin_phase(std::size_t steps);
  void measure(const DeviceCandidate& candidate);
  // From a measured candidate to the sparsities of current_.
  void move(const DeviceCandidate& candidate, double learning_rate, double* quality, bool is_first);

  RowCurves curves_;
  float target_;
  const Stream& stream_;
  Timeline& timeline_;
  CallContext& context_;
  CandidateBuffers uniform_;
  CandidateBuffers current_;
  DeviceBuffer<float> best_sparsities_;
  DeviceBuffer<double> best_quality_;
  DeviceBuffer<double> moves_;
  DeviceBuffer<double> qualities_;
};

}  // namespace secateur::gpu
