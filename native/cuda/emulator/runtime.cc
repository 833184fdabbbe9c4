// The runtime's functions, on the emulated device.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "cuda_on_host.h"
#include "device.h"

using secateur::cuda_on_host::Device;
using secateur::cuda_on_host::Event;
using secateur::cuda_on_host::Stream;

namespace {

constexpr int kPoison = 0xff;

std::lock_guard<std::recursive_mutex> locked() { return std::lock_guard(Device::get().mutex()); }

// What the memory of one side of a copy is.
enum class Side { kDevice, kPinned, kPageable };

Side side_of(const void* pointer, std::size_t bytes) {
  if (Device::get().holds(pointer, bytes)) return Side::kDevice;
  return Device::get().holds_pinned(pointer, bytes) ? Side::kPinned : Side::kPageable;
}

bool matches(cudaMemcpyKind kind, Side target, Side source) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return target != Side::kDevice && source != Side::kDevice;
    case cudaMemcpyHostToDevice:
      return target == Side::kDevice && source != Side::kDevice;
    case cudaMemcpyDeviceToHost:
      return target != Side::kDevice && source == Side::kDevice;
    case cudaMemcpyDeviceToDevice:
      return target == Side::kDevice && source == Side::kDevice;
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

cudaError_t copy_now(void* target, const void* source, std::size_t bytes) {
  const Device::Unlocked unlocked(Device::get());
  std::memmove(target, source, bytes);
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "CUDA emulated on the host");
  properties->totalGlobalMem = Device::get().total_bytes();
  properties->sharedMemPerBlockOptin = std::size_t{163} * 1024;
  properties->major = 8;
  properties->minor = 0;
  properties->multiProcessorCount = 1;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  const auto lock = locked();
  *free_bytes = Device::get().free_bytes();
  *total_bytes = Device::get().total_bytes();
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
  }
  return "unknown";
}

const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  const auto lock = locked();
  return Device::get().allocate(pointer, bytes);
}

cudaError_t cudaFree(void* pointer) {
  const auto lock = locked();
  return Device::get().free(pointer);
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  const auto lock = locked();
  return Device::get().allocate_pinned(pointer, bytes);
}

cudaError_t cudaFreeHost(void* pointer) {
  const auto lock = locked();
  return Device::get().free_pinned(pointer);
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const auto lock = locked();
  Device& device = Device::get();
  if (bytes == 0) return cudaSuccess;
  const Side to = side_of(target, bytes);
  const Side from = side_of(source, bytes);
  if (!matches(kind, to, from) || !device.knows(stream)) return cudaErrorInvalidValue;
  if (from == Side::kPageable) {
    auto staged = std::make_shared<std::vector<unsigned char>>(bytes);
    std::memcpy(staged->data(), source, bytes);
    return device.enqueue(stream, [=] { return copy_now(target, staged->data(), bytes); });
  }
  const cudaError_t queued = device.enqueue(stream, [=] { return copy_now(target, source, bytes); });
  if (queued != cudaSuccess) return queued;
  if (to == Side::kPageable) return device.drain(stream);
  // Whoever reads it before waiting reads nonsense.
  if (to == Side::kPinned) std::memset(target, kPoison, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes, cudaStream_t stream) {
  const auto lock = locked();
  Device& device = Device::get();
  if (bytes == 0) return cudaSuccess;
  if (!device.holds(target, bytes)) return cudaErrorInvalidValue;
  return device.enqueue(stream, [=, &device] {
    const Device::Unlocked unlocked(device);
    std::memset(target, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemset(void* target, int value, std::size_t bytes) {
  const auto lock = locked();
  const cudaError_t before = Device::get().drain_all();
  if (before != cudaSuccess) return before;
  const cudaError_t queued = cudaMemsetAsync(target, value, bytes, nullptr);
  return queued != cudaSuccess ? queued : Device::get().drain(nullptr);
}

cudaError_t cudaMemcpy(void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind) {
  const auto lock = locked();
  const cudaError_t before = Device::get().drain_all();
  if (before != cudaSuccess) return before;
  const cudaError_t queued = cudaMemcpyAsync(target, source, bytes, kind, nullptr);
  return queued != cudaSuccess ? queued : Device::get().drain(nullptr);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const auto lock = locked();
  *stream = Device::get().make_stream();
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const auto lock = locked();
  return Device::get().destroy_stream(stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const auto lock = locked();
  return Device::get().knows(stream) ? Device::get().drain(stream) : cudaErrorInvalidValue;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const auto lock = locked();
  Device& device = Device::get();
  if (!device.knows(event)) return cudaErrorInvalidValue;
  return device.enqueue(stream, [=, &device, record = event->recorded] { return device.drain_until(event, record); });
}

cudaError_t cudaDeviceSynchronize() {
  const auto lock = locked();
  return Device::get().drain_all();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const auto lock = locked();
  *event = Device::get().make_event();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const auto lock = locked();
  return Device::get().destroy_event(event);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto lock = locked();
  Device& device = Device::get();
  if (!device.knows(event)) return cudaErrorInvalidValue;
  // An event that is recorded anew on another stream: what it stood for before has to happen first.
  if (event->stream != stream && event->happened < event->recorded) {
    const cudaError_t error = device.drain_until(event, event->recorded);
    if (error != cudaSuccess) return error;
  }
  event->stream = stream;
  const std::size_t record = ++event->recorded;
  return device.enqueue(stream, [=] {
    event->happened = std::max(event->happened, record);
    event->time = Event::Clock::now();
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const auto lock = locked();
  if (!Device::get().knows(event)) return cudaErrorInvalidValue;
  // Work goes on while the host asks again and again.
  const cudaError_t error = Device::get().drain_until(event, event->recorded);
  return error;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const auto lock = locked();
  return Device::get().knows(event) ? Device::get().drain_until(event, event->recorded) : cudaErrorInvalidValue;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  const auto lock = locked();
  if (!Device::get().knows(begin) || !Device::get().knows(end)) return cudaErrorInvalidValue;
  if (begin->happened < begin->recorded || end->happened < end->recorded) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}
