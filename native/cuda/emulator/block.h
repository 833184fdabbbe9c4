// One thread block of a kernel on fibers. A CUDA thread runs until it meets a barrier or exchanges values with its warp; lanes are not in
// lockstep, so a barrier that is missing shows. Threads take turns in an order that tests choose.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda_types.h"
#include "fiber.h"
#include "race_check.h"

namespace secateur::cuda_on_host {

inline constexpr unsigned kWarpLanes = 32;
// Of the values that lanes exchange.
inline constexpr std::size_t kExchangedBytes = 24;

// kWarpAhead: a warp goes on as far as it can, to a barrier of the block, before the next one begins.
enum class ThreadOrder { kUp, kDown, kShuffled, kWarpAhead };

struct Schedule {
  ThreadOrder threads = ThreadOrder::kUp;
  bool blocks_backwards = false;
  unsigned seed = 1;
};

// What lanes do together; lanes that meet must all do the same.
enum class Exchange { kShuffle, kVote, kMatch, kReduce, kSynchronize, kMatrix };

// What a kernel reads through threadIdx and its like.
struct ThreadPosition {
  uint3 thread_index;
  uint3 block_index;
  dim3 block_size;
  dim3 grid_size;
  unsigned lane;
};

using LaneValues = std::array<std::array<unsigned char, kExchangedBytes>, kWarpLanes>;

// A copy to shared memory that has begun and is not awaited yet.
struct PendingCopy {
  void* target;
  const void* source;
  unsigned bytes;
};

class Block {
 public:
  // Threads and shared memory are used again for every block of a launch.
  Block(dim3 size, dim3 grid, std::size_t dynamic_shared_bytes, const Schedule& schedule, const std::function<void()>& kernel);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Runs all threads to their end. Returns why they cannot get there, or nothing.
  std::string run(uint3 index);

  // The following are called by the thread that runs now.
  static Block& current() {
    if (running_block == nullptr) std::abort();
    return *running_block;
  }
  static bool is_running() { return running_block != nullptr; }
  // Stops the block; the first reason counts.
  void fail(const std::string& reason);
  const ThreadPosition& position() const { return *running_position_; }
  void synchronize(const char* file, int line);
  // Every lane of `mask` calls it; returns what all of them gave.
  const LaneValues& exchange(unsigned mask, const void* value, std::size_t bytes, Exchange kind, const char* file, int line);
  // Fails unless the lane is one of `mask`: what others would read from it is undefined.
  void require_lane(unsigned mask, unsigned lane, const char* file, int line);
  // The block's variable of that key: poisoned at first and guarded on both sides.
  void* shared_variable(const void* key, std::size_t bytes);
  void* dynamic_shared();
  void copy_async(void* target, const void* source, unsigned bytes);
  void commit_copies();
  void await_copies(std::size_t pending_groups);

 private:
  struct Thread;
  struct Gathering;
  class SharedMemory;
  enum class State { kReady, kAtBarrier, kAtExchange, kDone };

  // Whose turn it is, or null when the block is at its end or has failed.
  Thread* choose_thread();
  Thread* turn_of(std::size_t thread);
  // Called by the thread that runs: others go on, and it does when it is its turn and it is ready.
  void give_way();
  bool release_barrier();
  void shuffle_order();
  [[noreturn]] void stop_for_ever();
  std::string describe(const Thread& thread) const;
  std::string describe_deadlock() const;
  Gathering& gathering_of(std::size_t warp, unsigned mask);

  // Blocks run one after the other, by whoever holds the device.
  static Block* running_block;

  const std::function<void()>& kernel_;
  Schedule schedule_;
  std::vector<Thread> threads_;
  // By warp; a mask has its own.
  std::vector<std::deque<Gathering>> gatherings_;
  std::map<const void*, std::unique_ptr<SharedMemory>> shared_;
  std::unique_ptr<SharedMemory> dynamic_shared_;
  Thread* running_ = nullptr;
  const ThreadPosition* running_position_ = nullptr;
  std::size_t done_ = 0;
  // Threads take turns in passes. A pass in which nobody was ready is the last.
  std::vector<std::size_t> order_;
  std::size_t place_in_order_ = 0;
  bool progress_ = false;
  // Of kWarpAhead: the warp that goes on before others do, from this thread on; passes of its own.
  std::size_t ahead_begin_ = 0;
  std::size_t ahead_next_ = 0;
  std::size_t ahead_end_ = 0;
  bool ahead_progress_ = false;
  std::size_t at_barrier_ = 0;
  unsigned barrier_turn_ = 0;
  Meeting barrier_;
  const char* barrier_file_ = nullptr;
  int barrier_line_ = 0;
  std::uint32_t random_;
  std::string failure_;
};

}  // namespace secateur::cuda_on_host
