#include "device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "address_check.h"

namespace secateur::cuda_on_host {

namespace {

constexpr int kPoison = 0xff;
constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kDefaultDeviceBytes = std::size_t{4} << 30;
// Of an A100: what a block may have in all, and threads.
constexpr std::size_t kMaximumSharedBytes = std::size_t{163} * 1024;
constexpr std::size_t kMaximumThreads = 1024;
constexpr unsigned kMaximumGridSide = 65535;

template <class Value>
bool contains(const std::map<std::uintptr_t, Value>& ranges, const volatile void* pointer, std::size_t bytes, auto size_of) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto found = ranges.upper_bound(address);
  if (found == ranges.begin()) return false;
  --found;
  return address + bytes <= found->first + size_of(found->second);
}

}  // namespace

Device::Device() {
  const char* const limit = std::getenv("SECATEUR_EMULATED_DEVICE_BYTES");
  limit_bytes_ = limit == nullptr ? kDefaultDeviceBytes : std::strtoull(limit, nullptr, 10);
}

Device& Device::get() {
  static Device device;
  return device;
}

void Device::protect(int protection) {
  for (const auto& [address, allocation] : allocations_) {
    mprotect(reinterpret_cast<void*>(address), allocation.mapped_bytes, protection);
  }
}

Device::Unlocked::Unlocked(Device& device) : device_(device) {
  if (device_.unlocked_++ == 0) device_.protect(PROT_READ | PROT_WRITE);
}

Device::Unlocked::~Unlocked() {
  if (--device_.unlocked_ == 0) device_.protect(PROT_NONE);
}

cudaError_t Device::allocate(void** pointer, std::size_t bytes) {
  if (bytes == 0) {
    *pointer = nullptr;
    return cudaSuccess;
  }
  if (bytes > free_bytes()) return cudaErrorMemoryAllocation;
  const std::size_t mapped = (bytes + 2 * kPageBytes - 1) / kPageBytes * kPageBytes;
  // The page before the memory is never to be touched.
  void* const pages = mmap(nullptr, kPageBytes + mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return cudaErrorMemoryAllocation;
  unsigned char* const memory = static_cast<unsigned char*>(pages) + kPageBytes;
  mprotect(memory, mapped, PROT_READ | PROT_WRITE);
  std::memset(memory, kPoison, bytes);
  forbid(memory + bytes, mapped - bytes);
  allocations_[reinterpret_cast<std::uintptr_t>(memory)] = {bytes, mapped};
  used_bytes_ += bytes;
  if (unlocked_ == 0) mprotect(memory, mapped, PROT_NONE);
  *pointer = memory;
  return cudaSuccess;
}

cudaError_t Device::free(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  // As in CUDA, freeing waits for all work.
  const cudaError_t error = drain_all();
  const auto found = allocations_.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == allocations_.end()) return cudaErrorInvalidValue;
  allow(pointer, found->second.mapped_bytes);
  munmap(static_cast<unsigned char*>(pointer) - kPageBytes, kPageBytes + found->second.mapped_bytes);
  used_bytes_ -= found->second.bytes;
  allocations_.erase(found);
  return error;
}

cudaError_t Device::allocate_pinned(void** pointer, std::size_t bytes) {
  *pointer = std::malloc(std::max<std::size_t>(bytes, 1));
  if (*pointer == nullptr) return cudaErrorMemoryAllocation;
  pinned_[reinterpret_cast<std::uintptr_t>(*pointer)] = bytes;
  return cudaSuccess;
}

cudaError_t Device::free_pinned(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  const cudaError_t error = drain_all();
  if (pinned_.erase(reinterpret_cast<std::uintptr_t>(pointer)) == 0) return cudaErrorInvalidValue;
  std::free(pointer);
  return error;
}

bool Device::holds(const volatile void* pointer, std::size_t bytes) const {
  return contains(allocations_, pointer, bytes, [](const Allocation& allocation) { return allocation.bytes; });
}

bool Device::holds_pinned(const volatile void* pointer, std::size_t bytes) const {
  return contains(pinned_, pointer, bytes, [](std::size_t size) { return size; });
}

void Device::announce_taken(void* memory, std::size_t bytes) {
  allow(memory, bytes);
  if (!is_idle()) return;
  const Unlocked unlocked(*this);
  std::memset(memory, kPoison, bytes);
}

void Device::announce_free(void* memory, std::size_t bytes) {
  // Who runs in place of launches may look at all memory.
  if (is_idle() && !launch_hook) forbid(memory, bytes);
}

bool Device::is_idle() const {
  return default_stream_.queue.empty() && std::ranges::all_of(streams_, [](const auto& entry) { return entry.second->queue.empty(); });
}

Stream* Device::make_stream() {
  auto made = std::make_unique<Stream>();
  Stream* const stream = made.get();
  streams_.emplace(stream, std::move(made));
  return stream;
}

cudaError_t Device::destroy_stream(Stream* stream) {
  if (!streams_.contains(stream)) return cudaErrorInvalidValue;
  const cudaError_t error = drain(stream);
  for (const auto& [event, owned] : events_) {
    if (owned->stream == stream) owned->stream = nullptr;
  }
  streams_.erase(stream);
  return error;
}

Event* Device::make_event() {
  auto made = std::make_unique<Event>();
  Event* const event = made.get();
  events_.emplace(event, std::move(made));
  return event;
}

cudaError_t Device::destroy_event(Event* event) {
  if (!events_.contains(event)) return cudaErrorInvalidValue;
  // What is queued may still refer to it.
  const cudaError_t error = drain_all();
  events_.erase(event);
  return error;
}

cudaError_t Device::enqueue(Stream* stream, std::function<cudaError_t()> work) {
  if (!knows(stream)) return cudaErrorInvalidValue;
  (stream == nullptr ? default_stream_ : *stream).queue.push_back(std::move(work));
  return cudaSuccess;
}

cudaError_t Device::drain(Stream* stream) {
  Stream& target = stream == nullptr ? default_stream_ : *stream;
  cudaError_t first = cudaSuccess;
  while (!target.queue.empty()) {
    const std::function<cudaError_t()> work = std::move(target.queue.front());
    target.queue.pop_front();
    const cudaError_t error = work();
    if (first == cudaSuccess) first = error;
  }
  return first;
}

cudaError_t Device::drain_all() {
  cudaError_t first = drain(nullptr);
  for (const auto& [stream, owned] : streams_) {
    const cudaError_t error = drain(owned.get());
    if (first == cudaSuccess) first = error;
  }
  return first;
}

cudaError_t Device::drain_until(Event* event, std::size_t record) {
  cudaError_t first = cudaSuccess;
  Stream& source = event->stream == nullptr ? default_stream_ : *event->stream;
  while (event->happened < record && !source.queue.empty()) {
    const std::function<cudaError_t()> work = std::move(source.queue.front());
    source.queue.pop_front();
    const cudaError_t error = work();
    if (first == cudaSuccess) first = error;
  }
  return first;
}

cudaError_t Device::run(const Launch& launch, const std::function<void()>& kernel) {
  const Unlocked unlocked(*this);
  if (!launch_hook) return run_on_fibers(launch, kernel);
  return launch_hook(launch, [&] { return run_on_fibers(launch, kernel); });
}

std::vector<std::span<std::byte>> Device::reachable_memory() const {
  std::vector<std::span<std::byte>> memory;
  for (const auto& [address, allocation] : allocations_) memory.emplace_back(reinterpret_cast<std::byte*>(address), allocation.bytes);
  for (const auto& [address, bytes] : pinned_) memory.emplace_back(reinterpret_cast<std::byte*>(address), bytes);
  return memory;
}

cudaError_t Device::run_on_fibers(const Launch& launch, const std::function<void()>& kernel) {
  const dim3 grid = launch.grid;
  Block block(launch.block, grid, launch.shared_bytes, schedule, kernel);
  const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
  for (std::size_t i = 0; i < blocks; ++i) {
    const std::size_t flat = schedule.blocks_backwards ? blocks - 1 - i : i;
    const uint3 index{static_cast<unsigned>(flat % grid.x), static_cast<unsigned>(flat / grid.x % grid.y),
                      static_cast<unsigned>(flat / grid.x / grid.y)};
    const std::string reason = block.run(index);
    if (reason.empty()) continue;
    failure = reason;
    std::fprintf(stderr, "CUDA on host: %s\n", reason.c_str());
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

void set_schedule(const Schedule& schedule) {
  const std::lock_guard lock(Device::get().mutex());
  Device::get().schedule = schedule;
}

std::string last_failure() {
  const std::lock_guard lock(Device::get().mutex());
  return std::exchange(Device::get().failure, {});
}

void set_device_bytes(std::size_t bytes) {
  const std::lock_guard lock(Device::get().mutex());
  Device::get().set_limit(bytes);
}

void announce_taken(void* memory, std::size_t bytes) {
  const std::lock_guard lock(Device::get().mutex());
  Device::get().announce_taken(memory, bytes);
}

void announce_free(void* memory, std::size_t bytes) {
  const std::lock_guard lock(Device::get().mutex());
  Device::get().announce_free(memory, bytes);
}

bool is_device_readable(const volatile void* pointer) {
  const std::lock_guard lock(Device::get().mutex());
  return Device::get().holds(pointer, 0) || Device::get().holds_pinned(pointer, 0);
}

void report_foreign_pointer(std::size_t argument) {
  const std::lock_guard lock(Device::get().mutex());
  Device::get().failure = "argument " + std::to_string(argument) + " of a kernel is a pointer to memory that the device cannot reach";
}

LaunchHook set_launch_hook(LaunchHook hook) {
  const std::lock_guard lock(Device::get().mutex());
  return std::exchange(Device::get().launch_hook, std::move(hook));
}

bool has_launch_hook() {
  const std::lock_guard lock(Device::get().mutex());
  return Device::get().launch_hook != nullptr;
}

std::vector<std::span<std::byte>> reachable_memory() {
  const std::lock_guard lock(Device::get().mutex());
  return Device::get().reachable_memory();
}

cudaError_t launch(Launch launch, cudaStream_t stream, std::function<void()> kernel) {
  const auto& [grid, block, shared_bytes, function, parameters] = launch;
  Device& device = Device::get();
  const std::lock_guard lock(device.mutex());
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaximumThreads || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffU ||
      grid.y > kMaximumGridSide || grid.z > kMaximumGridSide || shared_bytes > kMaximumSharedBytes) {
    return cudaErrorInvalidConfiguration;
  }
  return device.enqueue(stream, [&device, launch = std::move(launch), kernel = std::move(kernel)] { return device.run(launch, kernel); });
}

}  // namespace secateur::cuda_on_host
