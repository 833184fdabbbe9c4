// Memory that is taken once and handed out in blocks: no call of the CUDA runtime while a job runs, whose cudaMalloc and cudaFree wait for
// the device.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "secateur/memory_budget.h"

namespace secateur::gpu {

// Blocks begin at multiples of it, and what they take is rounded up to it.
inline constexpr std::uint64_t kBlockAlignment = 256;

// What a block takes of an arena.
constexpr std::uint64_t whole_blocks(std::uint64_t bytes) { return (bytes + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment; }

// The same for `size` values of T.
template <class T>
constexpr std::uint64_t block_bytes(std::uint64_t size) {
  return whole_blocks(size * sizeof(T));
}

// From which end of the free memory a block is taken.
enum class End { kLow, kHigh };

// Where an arena's memory comes from.
struct MemorySource {
  cudaError_t (*allocate)(void** memory, std::size_t bytes);
  cudaError_t (*release)(void* memory);
  // Bytes that are left there.
  std::size_t (*free_bytes)();
  // "The GPU", for messages.
  const char* owner;
};

extern const MemorySource kDeviceMemory;
extern const MemorySource kPinnedMemory;

// First fit by address, from either end, so that the same calls in the same order always get the same blocks. One thread at a time.
//
// A block that is given back may be handed out at once, and nothing here waits for the device. That is safe because whoever gives a block
// back while work on it may be queued knows that the next owner's work comes later on the same stream; a block that another stream uses as
// well is given back only after an event that stands for that use was waited for. For the streams of a session: every call ends by waiting
// for the stream of its computations, on success and on failure, before another call can take a block; a shard waits for its upload before
// it gives back what the upload uses; hidden states that are copied beside computations keep their blocks until the session ends, or wait
// for the copy.
class Arena {
 public:
  // The budget, of which the arena's memory is a part, and what is in use of it are counted in what outlives the arena.
  Arena(const MemorySource& source, MemoryBudget& budget, MemoryBudget& in_use);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Takes that much from the source, in one piece. Throws OutOfMemory with needed and free bytes, naming `purpose`.
  void reserve(std::uint64_t bytes, const std::string& purpose);

  // An uninitialised block; grows the arena where nothing free is large enough. Throws OutOfMemory as reserve does.
  void* take(std::uint64_t bytes, const std::string& purpose, End end);
  void give_back(void* block, std::uint64_t bytes) noexcept;

 private:
  struct Chunk {
    std::byte* memory;
    std::uint64_t bytes;
    Reservation reservation;
    // Size of each free range, by its offset. Ranges do not touch.
    std::map<std::uint64_t, std::uint64_t> free;
  };

  void* take_free(std::uint64_t bytes, End end);
  void grow(std::uint64_t bytes, const std::string& purpose);
  bool add_chunk(std::uint64_t bytes, const std::string& purpose);
  void release_unused_chunks();
  std::uint64_t left_in_budget() const;

  const MemorySource& source_;
  MemoryBudget& budget_;
  MemoryBudget& in_use_;
  std::vector<Chunk> chunks_;
};

}  // namespace secateur::gpu
