// What every computing call gets: cancellation and a place for timings.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "secateur/error.h"

namespace secateur {

// One timed part of a call, summed over all its occurrences. Times are nanoseconds from the start of the call.
struct PhaseTiming {
  std::string phase;
  std::int64_t start_ns = 0;
  // Busy time of all threads together; divided by the number of threads when it is reported.
  std::int64_t busy_ns = 0;
  double flops = 0;
  double bytes = 0;
};

// Thread-safe: work items on many threads check and record through the same context.
class CallContext {
 public:
  using Clock = std::chrono::steady_clock;

  explicit CallContext(const std::atomic<bool>* cancelled = nullptr) : cancelled_(cancelled), start_(Clock::now()) {}
  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  // Throws Error(kCancelled). Called at least every few milliseconds of work.
  void check() const {
    if (cancelled_ != nullptr && cancelled_->load(std::memory_order_relaxed)) {
      throw Error(ErrorCode::kCancelled, "The call was cancelled.");
    }
  }

  void record(const char* phase, Clock::time_point begin, Clock::time_point end, double flops, double bytes) {
    const std::lock_guard lock(mutex_);
    PhaseTiming& timing = phases_[phase];
    const std::int64_t start = std::chrono::duration_cast<std::chrono::nanoseconds>(begin - start_).count();
    if (timing.phase.empty()) {
      timing.phase = phase;
      timing.start_ns = start;
    } else if (start < timing.start_ns) {
      timing.start_ns = start;
    }
    timing.busy_ns += std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
    timing.flops += flops;
    timing.bytes += bytes;
  }

  // A part of this call that some threads work on, where the rest has one: it is cancelled as the call is. Its times are its own until they
  // are added.
  CallContext begin_part() const { return CallContext(cancelled_); }
  void add_part(const CallContext& part, std::size_t threads) {
    const std::int64_t begun = std::chrono::duration_cast<std::chrono::nanoseconds>(part.start_ - start_).count();
    const std::vector<PhaseTiming> phases = part.phases();
    const std::lock_guard lock(mutex_);
    for (const PhaseTiming& phase : phases) {
      PhaseTiming& timing = phases_[phase.phase];
      const std::int64_t start = begun + phase.start_ns;
      timing.start_ns = timing.phase.empty() ? start : std::min(timing.start_ns, start);
      timing.phase = phase.phase;
      timing.busy_ns += phase.busy_ns / static_cast<std::int64_t>(threads);
      timing.flops += phase.flops;
      timing.bytes += phase.bytes;
    }
  }

  std::vector<PhaseTiming> phases() const {
    const std::lock_guard lock(mutex_);
    std::vector<PhaseTiming> result;
    result.reserve(phases_.size());
    for (const auto& [name, timing] : phases_) result.push_back(timing);
    return result;
  }

 private:
  const std::atomic<bool>* cancelled_;
  Clock::time_point start_;
  mutable std::mutex mutex_;
  std::map<std::string, PhaseTiming> phases_;
};

// Times a scope as one occurrence of a phase.
class PhaseScope {
 public:
  PhaseScope(CallContext& context, const char* phase, double flops = 0, double bytes = 0)
      : context_(context), phase_(phase), flops_(flops), bytes_(bytes), begin_(CallContext::Clock::now()) {}
  ~PhaseScope() { context_.record(phase_, begin_, CallContext::Clock::now(), flops_, bytes_); }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  CallContext& context_;
  const char* phase_;
  double flops_;
  double bytes_;
  CallContext::Clock::time_point begin_;
};

}  // namespace secateur
