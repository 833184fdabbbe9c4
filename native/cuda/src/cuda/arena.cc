#include "cuda/arena.h"

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "cuda/cuda_error.h"

#if __has_include("cuda_on_host.h")
#include "cuda_on_host.h"
#endif

namespace secateur::gpu {

namespace {

// What an arena without a plan grows by: as much as it has, within these bounds.
constexpr std::uint64_t kSmallestGrowth = std::uint64_t{2} << 20;
constexpr std::uint64_t kLargestGrowth = std::uint64_t{256} << 20;

cudaError_t allocate_device(void** memory, std::size_t bytes) { return cudaMalloc(memory, bytes); }

cudaError_t allocate_pinned(void** memory, std::size_t bytes) { return cudaMallocHost(memory, bytes); }

std::size_t free_device_bytes() {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
  return free_bytes;
}

std::size_t free_host_bytes() {
  return static_cast<std::size_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

// The emulation finds accesses to what is free, and reads of what was never written, as it does for memory of the runtime.
void announce_taken([[maybe_unused]] void* block, [[maybe_unused]] std::uint64_t bytes) {
#if __has_include("cuda_on_host.h")
  cuda_on_host::announce_taken(block, bytes);
#endif
}

void announce_free([[maybe_unused]] void* block, [[maybe_unused]] std::uint64_t bytes) {
#if __has_include("cuda_on_host.h")
  cuda_on_host::announce_free(block, bytes);
#endif
}

}  // namespace

const MemorySource kDeviceMemory = {allocate_device, cudaFree, free_device_bytes, "The GPU"};
const MemorySource kPinnedMemory = {allocate_pinned, cudaFreeHost, free_host_bytes, "The host"};

Arena::Arena(const MemorySource& source, MemoryBudget& budget, MemoryBudget& in_use) : source_(source), budget_(budget), in_use_(in_use) {}

Arena::~Arena() {
  for (const Chunk& chunk : chunks_) {
    announce_taken(chunk.memory, chunk.bytes);
    static_cast<void>(source_.release(chunk.memory));
  }
}

void Arena::reserve(std::uint64_t bytes, const std::string& purpose) {
  if (bytes == 0 || add_chunk(bytes, purpose)) return;
  const std::uint64_t free_bytes = source_.free_bytes();
  throw OutOfMemory(std::string(source_.owner) + " has no room for " + purpose + ": " + std::to_string(bytes) + " bytes needed, " +
                        std::to_string(free_bytes) + " free.",
                    bytes, free_bytes);
}

void* Arena::take(std::uint64_t bytes, const std::string& purpose, End end) {
  const std::uint64_t whole = whole_blocks(bytes);
  void* block = take_free(whole, end);
  if (block == nullptr) {
    grow(whole, purpose);
    block = take_free(whole, end);
  }
  // Never more than the chunks are, which the budget has counted.
  in_use_.reserve(whole, purpose);
  announce_taken(block, bytes);
  return block;
}

void Arena::give_back(void* block, std::uint64_t bytes) noexcept {
  auto* const memory = static_cast<std::byte*>(block);
  const auto chunk = std::ranges::find_if(
      chunks_, [&](const Chunk& candidate) { return memory >= candidate.memory && memory < candidate.memory + candidate.bytes; });
  announce_free(block, bytes);
  bytes = whole_blocks(bytes);
  in_use_.release(bytes);
  const auto offset = static_cast<std::uint64_t>(memory - chunk->memory);
  const auto place = chunk->free.emplace(offset, bytes).first;
  const auto next = std::next(place);
  if (next != chunk->free.end() && offset + bytes == next->first) {
    place->second += next->second;
    chunk->free.erase(next);
  }
  if (place == chunk->free.begin()) return;
  const auto previous = std::prev(place);
  if (previous->first + previous->second != offset) return;
  previous->second += place->second;
  chunk->free.erase(place);
}

// Null where no free range is large enough.
void* Arena::take_free(std::uint64_t bytes, End end) {
  const auto fits = [&](const auto& range) { return range.second >= bytes; };
  for (Chunk& chunk : chunks_) {
    auto& free = chunk.free;
    if (end == End::kLow) {
      const auto found = std::ranges::find_if(free, fits);
      if (found == free.end()) continue;
      const auto [offset, size] = *found;
      free.erase(found);
      if (size > bytes) free.emplace(offset + bytes, size - bytes);
      return chunk.memory + offset;
    }
    const auto found = std::find_if(free.rbegin(), free.rend(), fits);
    if (found == free.rend()) continue;
    const auto [offset, size] = *found;
    if (size > bytes) {
      found->second -= bytes;
    } else {
      free.erase(offset);
    }
    return chunk.memory + offset + (size - bytes);
  }
  return nullptr;
}

void Arena::grow(std::uint64_t bytes, const std::string& purpose) {
  // What is free in pieces that are too small may be worth more to the budget.
  if (left_in_budget() < bytes) release_unused_chunks();
  const std::uint64_t left = left_in_budget();
  std::uint64_t largest = left;
  std::uint64_t total = 0;
  for (const Chunk& chunk : chunks_) {
    total += chunk.bytes;
    for (const auto& [offset, size] : chunk.free) largest = std::max(largest, size);
  }
  if (bytes > left) {
    throw OutOfMemory(purpose + " needs " + std::to_string(bytes) + " bytes; " + std::to_string(largest) +
                          " are left in one piece, of the memory budget of " + std::to_string(budget_.limit_bytes()) + ".",
                      bytes, largest);
  }
  const std::uint64_t generous = std::min(left, std::max(bytes, std::clamp(total, kSmallestGrowth, kLargestGrowth)));
  // A device that has less than the budget allows may still have what is needed.
  if (!add_chunk(generous, purpose)) reserve(bytes, purpose);
}

// Whether the source had the memory. Throws OutOfMemory when the budget has not.
bool Arena::add_chunk(std::uint64_t bytes, const std::string& purpose) {
  Reservation reservation(budget_, bytes, purpose);
  void* memory = nullptr;
  const cudaError_t error = source_.allocate(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    // The runtime remembers the error until somebody asks.
    static_cast<void>(cudaGetLastError());
    return false;
  }
  check(error, "allocating memory");
  announce_free(memory, bytes);
  chunks_.push_back({static_cast<std::byte*>(memory), bytes, std::move(reservation), {{0, bytes}}});
  return true;
}

void Arena::release_unused_chunks() {
  std::erase_if(chunks_, [&](const Chunk& chunk) {
    if (chunk.free.empty() || chunk.free.begin()->second != chunk.bytes) return false;
    announce_taken(chunk.memory, chunk.bytes);
    return source_.release(chunk.memory) == cudaSuccess;
  });
}

// In whole blocks.
std::uint64_t Arena::left_in_budget() const {
  const std::uint64_t used = budget_.used_bytes();
  const std::uint64_t left = budget_.limit_bytes() > used ? budget_.limit_bytes() - used : 0;
  return left / kBlockAlignment * kBlockAlignment;
}

}  // namespace secateur::gpu
