// Streams, events and the timing of what runs on them.
#pragma once

#include <cuda_runtime.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "cuda/cuda_error.h"
#include "cuda/profiler_range.h"
#include "secateur/call_context.h"

namespace secateur::gpu {

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); }
  ~Stream() { static_cast<void>(cudaStreamDestroy(stream_)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const noexcept { return stream_; }
  void synchronize(const char* operation) const { check(cudaStreamSynchronize(stream_), operation); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(unsigned flags = cudaEventDisableTiming) { check(cudaEventCreateWithFlags(&event_, flags), "making an event"); }
  ~Event() {
    if (event_ != nullptr) static_cast<void>(cudaEventDestroy(event_));
  }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }

  cudaEvent_t get() const noexcept { return event_; }
  void record(const Stream& stream) const { check(cudaEventRecord(event_, stream.get()), "recording an event"); }
  // What is queued on the stream from here on waits for the event's latest record.
  void hold(const Stream& stream) const { check(cudaStreamWaitEvent(stream.get(), event_, 0), "waiting for an event"); }
  void wait() const { check(cudaEventSynchronize(event_), "waiting for an event"); }

 private:
  cudaEvent_t event_ = nullptr;
};

// Times the phases of one call on one stream, and shows profilers when each was queued. Device time is tied to the host's clock at the end
// of every call, so that it cannot drift.
class Timeline {
 public:
  explicit Timeline(const Stream& stream) : stream_(stream) {}

  // Everything queued from here to the next begin or finish is one occurrence of the phase.
  void begin(const char* phase, double flops, double bytes) {
    Mark mark{phase, flops, bytes, take_event()};
    mark.event.record(stream_);
    marks_.push_back(std::move(mark));
    range_.emplace(phase);
  }

  // Waits for the stream and records the phases. Throws what went wrong on the device.
  void finish(CallContext& context, const char* operation) {
    Event end = take_event();
    end.record(stream_);
    range_.emplace(operation);
    stream_.synchronize(operation);
    range_.reset();
    const CallContext::Clock::time_point anchor = CallContext::Clock::now();
    const auto before_anchor = [&](const Event& event) {
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, event.get(), end.get()), "reading an event");
      return std::chrono::duration_cast<CallContext::Clock::duration>(std::chrono::duration<float, std::milli>(milliseconds));
    };
    for (std::size_t i = 0; i < marks_.size(); ++i) {
      const auto begun = anchor - before_anchor(marks_[i].event);
      const auto ended = i + 1 < marks_.size() ? anchor - before_anchor(marks_[i + 1].event) : anchor;
      context.record(marks_[i].phase, begun, ended, marks_[i].flops, marks_[i].bytes);
    }
    for (Mark& mark : marks_) free_events_.push_back(std::move(mark.event));
    free_events_.push_back(std::move(end));
    marks_.clear();
  }

  // Forgets what a call that failed has begun.
  void abandon() {
    marks_.clear();
    range_.reset();
  }

 private:
  struct Mark {
    const char* phase;
    double flops;
    double bytes;
    Event event;
  };

  Event take_event() {
    if (free_events_.empty()) return Event(cudaEventDefault);
    Event event = std::move(free_events_.back());
    free_events_.pop_back();
    return event;
  }

  const Stream& stream_;
  std::vector<Mark> marks_;
  std::vector<Event> free_events_;
  std::optional<ProfilerRange> range_;
};

}  // namespace secateur::gpu
