// CUDA on the host, so that the very source of the kernels and of the backend runs, and is tested, without a GPU: the built-ins of kernels
// and the part of the runtime's interface that the engine uses. What is modelled: threads, warps, barriers, shared memory, streams, events
// and when copies happen. What is not: weak memory order, speed, and what nvcc and ptxas make of a kernel.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "block.h"
#include "cuda_types.h"

// Function and variable attributes.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

// --- Launches

namespace secateur::cuda_on_host {

// For tests; holds for the launches of this process from here on.
void set_schedule(const Schedule& schedule);
// Why the last kernel failed, with the places in its source; empty when none did.
std::string last_failure();
// Of the device; cudaMalloc fails beyond it. The environment variable SECATEUR_EMULATED_DEVICE_BYTES sets it at first.
void set_device_bytes(std::size_t bytes);

// A kernel and what it is started with.
struct Launch {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  // Address of its function.
  const void* kernel = nullptr;
  std::vector<std::vector<std::byte>> parameters;
};

// Runs in place of every launch; run_on_host is what it replaces. Device memory may be touched while it runs. Returns the one before.
using LaunchHook = std::function<cudaError_t(const Launch& launch, const std::function<cudaError_t()>& run_on_host)>;
LaunchHook set_launch_hook(LaunchHook hook);
bool has_launch_hook();
// For allocators that hand out parts of what the runtime gave them: what is taken holds nonsense, and what is free must not be touched,
// which AddressSanitizer then finds. Only while nothing is queued, which may rightly still use the part.
void announce_taken(void* memory, std::size_t bytes);
void announce_free(void* memory, std::size_t bytes);
// Device memory and pinned memory.
std::vector<std::span<std::byte>> reachable_memory();

// Queues a launch. Pointers among the arguments must be device or pinned memory.
cudaError_t launch(Launch launch, cudaStream_t stream, std::function<void()> kernel);
bool is_device_readable(const volatile void* pointer);
void report_foreign_pointer(std::size_t argument);

template <class Value>
std::vector<std::byte> bytes_of(const Value& value) {
  static_assert(std::is_trivially_copyable_v<Value>);
  std::vector<std::byte> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

template <class Argument>
bool is_acceptable(const Argument& argument) {
  if constexpr (std::is_pointer_v<Argument>) {
    return argument == nullptr || is_device_readable(argument);
  } else {
    return true;
  }
}

}  // namespace secateur::cuda_on_host

namespace secateur::gpu {

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
  const std::tuple<std::remove_cv_t<Parameters>...> values(static_cast<Parameters>(arguments)...);
  cuda_on_host::Launch launch{
      .grid = grid, .block = block, .shared_bytes = shared_bytes, .kernel = reinterpret_cast<const void*>(kernel), .parameters = {}};
  bool acceptable = true;
  const auto examine = [&](const auto& value) {
    if (!cuda_on_host::is_acceptable(value)) {
      cuda_on_host::report_foreign_pointer(launch.parameters.size());
      acceptable = false;
    }
    launch.parameters.push_back(cuda_on_host::bytes_of(value));
  };
  std::apply([&](const auto&... value) { (examine(value), ...); }, values);
  if (!acceptable) return cudaErrorIllegalAddress;
  return cuda_on_host::launch(std::move(launch), stream, [kernel, values] { std::apply(kernel, values); });
}

}  // namespace secateur::gpu

// --- What kernels are written with

#define threadIdx (secateur::cuda_on_host::Block::current().position().thread_index)
#define blockIdx (secateur::cuda_on_host::Block::current().position().block_index)
#define blockDim (secateur::cuda_on_host::Block::current().position().block_size)
#define gridDim (secateur::cuda_on_host::Block::current().position().grid_size)

#define SECATEUR_SHARED(Type, name) \
  static const char name##_key = 0; \
  Type& name = *static_cast<Type*>(secateur::cuda_on_host::Block::current().shared_variable(&name##_key, sizeof(Type)))
#define SECATEUR_DYNAMIC_SHARED(Type, name) Type* const name = static_cast<Type*>(secateur::cuda_on_host::Block::current().dynamic_shared())

// The place of a call, for messages.
#define SECATEUR_CALL_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SECATEUR_CALL_PLACE) { secateur::cuda_on_host::Block::current().synchronize(file, line); }

namespace secateur::cuda_on_host {

template <class Value>
const LaneValues& exchange(unsigned mask, const Value& value, Exchange kind, const char* file, int line) {
  static_assert(sizeof(Value) <= kExchangedBytes && std::is_trivially_copyable_v<Value>);
  return Block::current().exchange(mask, &value, sizeof value, kind, file, line);
}

template <class Value>
Value value_of(const LaneValues& values, unsigned lane) {
  Value value;
  std::memcpy(&value, values[lane].data(), sizeof value);
  return value;
}

inline unsigned current_lane() { return Block::current().position().lane; }

// The value of lane `source`, or the own one when that is outside of the group of `width` lanes.
template <class Value>
Value shuffle(unsigned mask, Value value, unsigned source, bool inside, const char* file, int line) {
  if (inside) Block::current().require_lane(mask, source, file, line);
  const LaneValues& values = exchange(mask, value, Exchange::kShuffle, file, line);
  return inside ? value_of<Value>(values, source) : value;
}

template <class Value, class Combine>
Value reduce(unsigned mask, Value value, const Combine& combine, const char* file, int line) {
  const LaneValues& values = exchange(mask, value, Exchange::kReduce, file, line);
  bool first = true;
  Value result{};
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    if (((mask >> lane) & 1U) == 0) continue;
    const Value other = value_of<Value>(values, lane);
    result = first ? other : combine(result, other);
    first = false;
  }
  return result;
}

template <class Value, class Change>
Value change_atomically(Value* target, const Change& change) {
#if defined(SECATEUR_RACE_CHECK)
  // Nobody comes between, but the race check must see that it is atomic. It knows no fences, so that each of these is one.
  using Bits = std::conditional_t<sizeof(Value) == sizeof(std::uint64_t), std::uint64_t, std::uint32_t>;
  auto* const bits = reinterpret_cast<Bits*>(target);
  const auto before = __builtin_bit_cast(Value, __atomic_load_n(bits, __ATOMIC_ACQUIRE));
  __atomic_store_n(bits, __builtin_bit_cast(Bits, change(before)), __ATOMIC_RELEASE);
  return before;
#else
  // Threads of a block take turns and blocks run one after the other.
  const Value before = *target;
  *target = change(before);
  return before;
#endif
}

}  // namespace secateur::cuda_on_host

inline void __syncwarp(unsigned mask = 0xffffffffU, SECATEUR_CALL_PLACE) {
  secateur::cuda_on_host::exchange(mask, 0, secateur::cuda_on_host::Exchange::kSynchronize, file, line);
}

template <class Value>
Value __shfl_sync(unsigned mask, Value value, int source, int width = 32, SECATEUR_CALL_PLACE) {
  const unsigned group = secateur::cuda_on_host::current_lane() & ~(static_cast<unsigned>(width) - 1);
  return secateur::cuda_on_host::shuffle(mask, value, group | (static_cast<unsigned>(source) & (static_cast<unsigned>(width) - 1)), true,
                                         file, line);
}

template <class Value>
Value __shfl_up_sync(unsigned mask, Value value, unsigned distance, int width = 32, SECATEUR_CALL_PLACE) {
  const unsigned lane = secateur::cuda_on_host::current_lane();
  const bool inside = (lane & (static_cast<unsigned>(width) - 1)) >= distance;
  return secateur::cuda_on_host::shuffle(mask, value, lane - distance, inside, file, line);
}

template <class Value>
Value __shfl_down_sync(unsigned mask, Value value, unsigned distance, int width = 32, SECATEUR_CALL_PLACE) {
  const unsigned lane = secateur::cuda_on_host::current_lane();
  const bool inside = (lane & (static_cast<unsigned>(width) - 1)) + distance < static_cast<unsigned>(width);
  return secateur::cuda_on_host::shuffle(mask, value, lane + distance, inside, file, line);
}

template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, int distance, int width = 32, SECATEUR_CALL_PLACE) {
  const unsigned lane = secateur::cuda_on_host::current_lane();
  const unsigned source = lane ^ static_cast<unsigned>(distance);
  const unsigned group = ~(static_cast<unsigned>(width) - 1);
  return secateur::cuda_on_host::shuffle(mask, value, source, (source & group) <= (lane & group), file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SECATEUR_CALL_PLACE) {
  using namespace secateur::cuda_on_host;
  const LaneValues& values = exchange(mask, predicate, Exchange::kVote, file, line);
  unsigned result = 0;
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    if (((mask >> lane) & 1U) != 0 && value_of<int>(values, lane) != 0) result |= 1U << lane;
  }
  return result;
}

inline int __any_sync(unsigned mask, int predicate, SECATEUR_CALL_PLACE) { return __ballot_sync(mask, predicate, file, line) != 0; }
inline int __all_sync(unsigned mask, int predicate, SECATEUR_CALL_PLACE) { return __ballot_sync(mask, predicate, file, line) == mask; }

template <class Value>
unsigned __match_any_sync(unsigned mask, Value value, SECATEUR_CALL_PLACE) {
  using namespace secateur::cuda_on_host;
  const LaneValues& values = exchange(mask, value, Exchange::kMatch, file, line);
  unsigned result = 0;
  for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
    if (((mask >> lane) & 1U) != 0 && value_of<Value>(values, lane) == value) result |= 1U << lane;
  }
  return result;
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, SECATEUR_CALL_PLACE) {
  return secateur::cuda_on_host::reduce(
      mask, value, [](unsigned a, unsigned b) { return a + b; }, file, line);
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, SECATEUR_CALL_PLACE) {
  return secateur::cuda_on_host::reduce(
      mask, value, [](unsigned a, unsigned b) { return a < b ? a : b; }, file, line);
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, SECATEUR_CALL_PLACE) {
  return secateur::cuda_on_host::reduce(
      mask, value, [](unsigned a, unsigned b) { return a > b ? a : b; }, file, line);
}

inline void __threadfence() {}
inline void __threadfence_block() {}

template <class Value>
Value atomicAdd(Value* target, std::type_identity_t<Value> value) {
  return secateur::cuda_on_host::change_atomically(target, [=](Value old) { return static_cast<Value>(old + value); });
}
template <class Value>
Value atomicMax(Value* target, std::type_identity_t<Value> value) {
  return secateur::cuda_on_host::change_atomically(target, [=](Value old) { return old > value ? old : value; });
}
template <class Value>
Value atomicMin(Value* target, std::type_identity_t<Value> value) {
  return secateur::cuda_on_host::change_atomically(target, [=](Value old) { return old < value ? old : value; });
}
template <class Value>
Value atomicOr(Value* target, std::type_identity_t<Value> value) {
  return secateur::cuda_on_host::change_atomically(target, [=](Value old) { return static_cast<Value>(old | value); });
}
template <class Value>
Value atomicCAS(Value* target, std::type_identity_t<Value> expected, std::type_identity_t<Value> value) {
  return secateur::cuda_on_host::change_atomically(target, [=](Value old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* target, unsigned limit) {
  return secateur::cuda_on_host::change_atomically(target, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}

template <class Value>
Value __ldg(const Value* pointer) {
  return *pointer;
}
template <class Value>
void __stcg(Value* pointer, Value value) {
  *pointer = value;
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline int __ffs(int value) { return __builtin_ffs(value); }
// Four of the eight bytes of both, each chosen by the lowest three bits of a digit of the selectors; they have no others here.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selectors) {
  const unsigned long long bytes = static_cast<unsigned long long>(high) << 32 | low;
  unsigned chosen = 0;
  for (unsigned i = 0; i < 4; ++i) chosen |= static_cast<unsigned>(bytes >> (selectors >> (4 * i) & 7U) * 8 & 0xffU) << (8 * i);
  return chosen;
}
inline unsigned __float_as_uint(float value) { return __builtin_bit_cast(unsigned, value); }
inline int __float_as_int(float value) { return __builtin_bit_cast(int, value); }
inline float __uint_as_float(unsigned value) { return __builtin_bit_cast(float, value); }
inline float __int_as_float(int value) { return __builtin_bit_cast(float, value); }

// --- The runtime

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes);
cudaError_t cudaGetLastError();
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);

cudaError_t cudaMalloc(void** pointer, std::size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes);
cudaError_t cudaFreeHost(void* pointer);

// Copies from pageable memory read it before they return, copies to it end before they return; copies of pinned memory are queued.
cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaMemset(void* target, int value, std::size_t bytes);
cudaError_t cudaMemcpy(void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);

inline constexpr int CUDART_VERSION = 0;
