// Ranges that NVIDIA's profilers show. Without a profiler they cost next to nothing; without NVTX's headers there are none.
#pragma once

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#endif

namespace secateur::gpu {

// From its construction to its destruction, on any thread.
class ProfilerRange {
 public:
#ifdef NVTX_VERSION
  explicit ProfilerRange(const char* name) : id_(nvtxRangeStartA(name)) {}
  ~ProfilerRange() { nvtxRangeEnd(id_); }
#else
  explicit ProfilerRange(const char*) {}
  ~ProfilerRange() = default;
#endif
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;

#ifdef NVTX_VERSION
 private:
  nvtxRangeId_t id_;
#endif
};

}  // namespace secateur::gpu
