#include "block.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

#include "address_check.h"

namespace secateur::cuda_on_host {

namespace {

// NaN in every floating-point type and -1 in every integer: what relies on zeros shows.
constexpr int kPoison = 0xff;
constexpr std::size_t kGuardBytes = 256;
// By one asynchronous copy.
constexpr std::size_t kCopiedBytes = 16;

FiberPool& fiber_pool() {
  static FiberPool pool;
  return pool;
}

// Of the usual sizes without a call, which sanitizers intercept.
void copy_value(unsigned char* target, const void* value, std::size_t bytes) {
  switch (bytes) {
    case 4:
      std::memcpy(target, value, 4);
      break;
    case 8:
      std::memcpy(target, value, 8);
      break;
    case kExchangedBytes:
      std::memcpy(target, value, kExchangedBytes);
      break;
    default:
      std::memcpy(target, value, bytes);
  }
}

bool is_same_place(const char* file, int line, const char* other_file, int other_line) {
  return line == other_line && (file == other_file || std::strcmp(file, other_file) == 0);
}

std::string place(const char* file, int line) {
  const char* const slash = std::strrchr(file, '/');
  return std::string(slash == nullptr ? file : slash + 1) + ":" + std::to_string(line);
}

}  // namespace

struct Block::Thread {
  Block* block = nullptr;
  ThreadPosition position{};
  std::unique_ptr<Fiber> fiber = fiber_pool().take();
  State state = State::kReady;
  std::size_t warp = 0;
  const char* file = "";
  int line = 0;
  // Copies of the group that is open and of those that are committed.
  std::vector<PendingCopy> open_copies;
  std::deque<std::vector<PendingCopy>> committed_copies;
};

// Lanes of a warp that meet. Two tables take turns: a lane may give its next value before the others have read this one.
struct Block::Gathering {
  unsigned mask = 0;
  unsigned arrived = 0;
  Exchange kind{};
  const char* file = "";
  int line = 0;
  unsigned turn = 0;
  std::array<LaneValues, 2> values{};
  Meeting meeting;
};

class Block::SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes) : mapped_bytes_(bytes + 2 * kGuardBytes), bytes_(bytes) {
    map(0);
    forbid(memory_, kGuardBytes);
    forbid(memory_ + kGuardBytes + bytes_, kGuardBytes);
    reset();
  }
  ~SharedMemory() {
    allow(memory_, mapped_bytes_);
    munmap(memory_, mapped_bytes_);
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void reset() {
    // New memory has no history of accesses by the block before.
    if (kRaceCheck) map(MAP_FIXED);
    std::memset(memory_ + kGuardBytes, kPoison, bytes_);
    live_ = false;
  }
  void* use() {
    live_ = true;
    return memory_ + kGuardBytes;
  }
  bool live() const { return live_; }

 private:
  void map(int flags) {
    void* const memory = mmap(memory_, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<unsigned char*>(memory);
  }

  std::size_t mapped_bytes_;
  std::size_t bytes_;
  unsigned char* memory_ = nullptr;
  bool live_ = false;
};

Block::Block(dim3 size, dim3 grid, std::size_t dynamic_shared_bytes, const Schedule& schedule, const std::function<void()>& kernel)
    : kernel_(kernel), schedule_(schedule), random_(schedule.seed * 2654435761U + 1) {
  const std::size_t count = std::size_t{size.x} * size.y * size.z;
  threads_.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto flat = static_cast<unsigned>(i);
    Thread& thread = threads_[i];
    thread.block = this;
    thread.position = {{flat % size.x, flat / size.x % size.y, flat / size.x / size.y}, {}, size, grid, flat % kWarpLanes};
    thread.warp = i / kWarpLanes;
  }
  order_.resize(count);
  gatherings_.resize((count + kWarpLanes - 1) / kWarpLanes);
  if (dynamic_shared_bytes > 0) dynamic_shared_ = std::make_unique<SharedMemory>(dynamic_shared_bytes);
}

Block::~Block() {
  for (Thread& thread : threads_) thread.fiber->join();
  // Fibers that were stopped in the middle are not used again.
  if (!failure_.empty()) return;
  for (Thread& thread : threads_) fiber_pool().give_back(std::move(thread.fiber));
}

Block* Block::running_block = nullptr;

std::string Block::run(uint3 index) {
  const RaceCheckPaused paused;
  running_block = this;
  for (auto& [key, memory] : shared_) {
    if (memory->live()) memory->reset();
  }
  if (dynamic_shared_) dynamic_shared_->reset();
  for (auto& warp : gatherings_) warp.clear();
  at_barrier_ = 0;
  failure_.clear();
  for (Thread& thread : threads_) {
    thread.position.block_index = index;
    thread.state = State::kReady;
    thread.open_copies.clear();
    thread.committed_copies.clear();
    thread.fiber->prepare(
        [](void* argument) {
          auto& self = *static_cast<Thread*>(argument);
          self.block->kernel_();
          self.state = State::kDone;
          ++self.block->done_;
          self.block->give_way();
        },
        &thread);
  }
  done_ = 0;
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  if (schedule_.threads == ThreadOrder::kDown) std::reverse(order_.begin(), order_.end());
  if (schedule_.threads == ThreadOrder::kShuffled) shuffle_order();
  place_in_order_ = 0;
  progress_ = false;
  ahead_next_ = ahead_end_ = 0;
  ahead_progress_ = false;
  choose_thread()->fiber->resume();
  running_block = nullptr;
  return failure_;
}

Block::Thread* Block::turn_of(std::size_t thread) {
  running_ = &threads_[thread];
  running_position_ = &running_->position;
  return running_;
}

Block::Thread* Block::choose_thread() {
  while (failure_.empty()) {
    while (ahead_next_ < ahead_end_) {
      const std::size_t i = ahead_next_++;
      if (threads_[i].state == State::kReady) ahead_progress_ = true;
      if (ahead_next_ == ahead_end_ && ahead_progress_) {
        ahead_next_ = ahead_begin_;
        ahead_progress_ = false;
      }
      if (threads_[i].state == State::kReady) return turn_of(i);
    }
    while (place_in_order_ < order_.size()) {
      const std::size_t i = order_[place_in_order_++];
      if (threads_[i].state != State::kReady) continue;
      progress_ = true;
      // The lanes of its warp that it sets free, and itself, come before other warps.
      const bool last_of_warp = i % kWarpLanes == kWarpLanes - 1 || i + 1 == threads_.size();
      if (schedule_.threads == ThreadOrder::kWarpAhead && last_of_warp) {
        ahead_begin_ = ahead_next_ = threads_[i].warp * kWarpLanes;
        ahead_end_ = i + 1;
        ahead_progress_ = false;
      }
      return turn_of(i);
    }
    if (release_barrier()) progress_ = true;
    if (done_ == threads_.size()) return nullptr;
    if (!progress_) {
      const RaceCheckPaused paused;
      fail(describe_deadlock());
    }
    if (schedule_.threads == ThreadOrder::kShuffled) shuffle_order();
    place_in_order_ = 0;
    progress_ = false;
  }
  return nullptr;
}

bool Block::release_barrier() {
  if (at_barrier_ == 0 || at_barrier_ + done_ < threads_.size()) return false;
  for (Thread& thread : threads_) {
    if (thread.state == State::kAtBarrier) thread.state = State::kReady;
  }
  at_barrier_ = 0;
  barrier_turn_ ^= 1U;
  return true;
}

void Block::shuffle_order() {
  for (std::size_t i = order_.size() - 1; i > 0; --i) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 17;
    random_ ^= random_ << 5;
    std::swap(order_[i], order_[random_ % (i + 1)]);
  }
}

void Block::give_way() {
  Thread* const self = running_;
  Thread* const next = choose_thread();
  if (next == nullptr) {
    self->fiber->suspend();
  } else if (next != self) {
    self->fiber->switch_to(*next->fiber);
  }
}

void Block::fail(const std::string& reason) {
  if (failure_.empty()) failure_ = reason;
}

void Block::stop_for_ever() {
  for (;;) give_way();
}

std::string Block::describe(const Thread& thread) const {
  const auto& [x, y, z] = thread.position.thread_index;
  const uint3& block = thread.position.block_index;
  return "thread (" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ") of block (" + std::to_string(block.x) +
         ", " + std::to_string(block.y) + ", " + std::to_string(block.z) + ")";
}

std::string Block::describe_deadlock() const {
  constexpr std::size_t kShown = 4;
  std::string text = "threads wait for each other for ever:";
  std::size_t shown = 0;
  std::size_t done = 0;
  for (const Thread& thread : threads_) {
    if (thread.state == State::kDone) ++done;
    if (thread.state == State::kDone || shown == kShown) continue;
    ++shown;
    text += " " + describe(thread) + (thread.state == State::kAtBarrier ? " at the barrier " : " at the warp operation ") +
            place(thread.file, thread.line) + ";";
  }
  return text + " " + std::to_string(done) + " have ended.";
}

void Block::synchronize(const char* file, int line) {
  const RaceCheckPaused paused;
  Thread& self = *running_;
  if (at_barrier_ == 0) {
    barrier_file_ = file;
    barrier_line_ = line;
  } else if (!is_same_place(file, line, barrier_file_, barrier_line_)) {
    fail("divergent barrier: " + describe(self) + " is at " + place(file, line) + ", others are at " + place(barrier_file_, barrier_line_));
  }
  self.file = file;
  self.line = line;
  self.state = State::kAtBarrier;
  ++at_barrier_;
  const unsigned turn = barrier_turn_;
  barrier_.release(turn);
  give_way();
  barrier_.acquire(turn);
}

Block::Gathering& Block::gathering_of(std::size_t warp, unsigned mask) {
  for (Gathering& gathering : gatherings_[warp]) {
    if (gathering.mask == mask) return gathering;
  }
  gatherings_[warp].push_back({});
  gatherings_[warp].back().mask = mask;
  return gatherings_[warp].back();
}

const LaneValues& Block::exchange(unsigned mask, const void* value, std::size_t bytes, Exchange kind, const char* file, int line) {
  const RaceCheckPaused paused;
  Thread& self = *running_;
  const unsigned own_bit = 1U << self.position.lane;
  if ((mask & own_bit) == 0) {
    fail(describe(self) + " is not in its own mask at " + place(file, line));
    stop_for_ever();
  }
  // A full mask in the last, partial warp means its lanes.
  const std::size_t lanes = std::min<std::size_t>(kWarpLanes, threads_.size() - self.warp * kWarpLanes);
  if (lanes < kWarpLanes) mask &= (1U << lanes) - 1;
  Gathering& gathering = gathering_of(self.warp, mask);
  if (gathering.arrived == 0) {
    gathering.kind = kind;
    gathering.file = file;
    gathering.line = line;
  } else if (gathering.kind != kind || !is_same_place(file, line, gathering.file, gathering.line)) {
    fail("divergent warp: " + describe(self) + " is at " + place(file, line) + ", other lanes of its mask are at " +
         place(gathering.file, gathering.line));
    stop_for_ever();
  }
  const unsigned turn = gathering.turn;
  LaneValues& values = gathering.values[turn];
  copy_value(values[self.position.lane].data(), value, bytes);
  gathering.arrived |= own_bit;
  self.file = file;
  self.line = line;
  // Of the warp operations only __syncwarp orders accesses to memory.
  if (kind == Exchange::kSynchronize) gathering.meeting.release(turn);
  if (gathering.arrived == mask) {
    gathering.arrived = 0;
    gathering.turn ^= 1U;
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      if (((mask >> lane) & 1U) != 0) threads_[self.warp * kWarpLanes + lane].state = State::kReady;
    }
  } else {
    self.state = State::kAtExchange;
  }
  give_way();
  if (kind == Exchange::kSynchronize) gathering.meeting.acquire(turn);
  return values;
}

void Block::require_lane(unsigned mask, unsigned lane, const char* file, int line) {
  const Thread& self = *running_;
  if (lane < kWarpLanes && ((mask >> lane) & 1U) != 0 && self.warp * kWarpLanes + lane < threads_.size()) return;
  const RaceCheckPaused paused;
  fail(describe(self) + " reads from lane " + std::to_string(lane) + ", which takes no part, at " + place(file, line));
  stop_for_ever();
}

void* Block::shared_variable(const void* key, std::size_t bytes) {
  const RaceCheckPaused paused;
  std::unique_ptr<SharedMemory>& memory = shared_[key];
  if (!memory) memory = std::make_unique<SharedMemory>(bytes);
  return memory->use();
}

void* Block::dynamic_shared() {
  if (!dynamic_shared_) {
    fail(describe(*running_) + " uses dynamic shared memory, of which the launch gives none");
    stop_for_ever();
  }
  return dynamic_shared_->use();
}

void Block::copy_async(void* target, const void* source, unsigned bytes) {
  if (reinterpret_cast<std::uintptr_t>(target) % kCopiedBytes != 0 ||
      (bytes > 0 && reinterpret_cast<std::uintptr_t>(source) % kCopiedBytes != 0) || bytes > kCopiedBytes) {
    fail(describe(*running_) + " copies asynchronously from or to an address that is not a multiple of 16");
    stop_for_ever();
  }
  // From here to the wait the source may be read and the target written at any time.
  check_read(source, bytes);
  check_write(target, kCopiedBytes);
  require_writable(target, kCopiedBytes);
  const RaceCheckPaused paused;
  // Nobody may rely on the bytes before they are awaited.
  std::memset(target, kPoison, kCopiedBytes);
  running_->open_copies.push_back({target, source, bytes});
}

void Block::commit_copies() {
  const RaceCheckPaused paused;
  Thread& self = *running_;
  self.committed_copies.push_back(std::move(self.open_copies));
  self.open_copies.clear();
}

void Block::await_copies(std::size_t pending_groups) {
  Thread& self = *running_;
  while (self.committed_copies.size() > pending_groups) {
    for (const PendingCopy& copy : self.committed_copies.front()) {
      check_read(copy.source, copy.bytes);
      check_write(copy.target, kCopiedBytes);
      require_writable(copy.target, kCopiedBytes);
      const RaceCheckPaused paused;
      std::memset(copy.target, 0, kCopiedBytes);
      if (copy.bytes > 0) std::memcpy(copy.target, copy.source, copy.bytes);
    }
    const RaceCheckPaused paused;
    self.committed_copies.pop_front();
  }
}

}  // namespace secateur::cuda_on_host

#if defined(SECATEUR_RACE_CHECK)

// What the thread sanitizer asks of the program that it is part of. It stands here so that the linker cannot leave it out.

// Called after a report was printed. A race of a kernel fails the launch, any other ends the process.
extern "C" __attribute__((visibility("default"))) void __tsan_on_report(void*) {
  constexpr int kExitCode = 66;
  if (!secateur::cuda_on_host::Block::is_running()) std::_Exit(kExitCode);
  secateur::cuda_on_host::Block::current().fail("a race, which the sanitizer describes above");
}

// Shared memory of different kernels lies at the same addresses.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_options() {
  return "exitcode=0 suppress_equal_stacks=0 suppress_equal_addresses=0";
}

#endif
