#include "block.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <numeric>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace secateur::cuda_on_host {

namespace {

// NaN in every floating-point type and -1 in every integer: what relies on zeros shows.
constexpr int kPoison = 0xff;
constexpr std::size_t kGuardBytes = 256;

// Blocks run one after the other, by whoever holds the device.
Block* running_block = nullptr;

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
  Fiber fiber;
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
};

class Block::SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes) : memory_(bytes + 2 * kGuardBytes), bytes_(bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    data_ = memory_.data() + (kGuardBytes - address % 128);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(memory_.data(), static_cast<std::size_t>(data_ - memory_.data()));
    __asan_poison_memory_region(data_ + bytes_, static_cast<std::size_t>(memory_.data() + memory_.size() - data_) - bytes_);
#endif
    reset();
  }
  ~SharedMemory() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory_.data(), memory_.size());
#endif
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void reset() {
    std::memset(data_, kPoison, bytes_);
    live_ = false;
  }
  void* use() {
    live_ = true;
    return data_;
  }
  bool live() const { return live_; }

 private:
  std::vector<unsigned char> memory_;
  std::size_t bytes_;
  unsigned char* data_ = nullptr;
  bool live_ = false;
};

Block::Block(dim3 size, dim3 grid, std::size_t dynamic_shared_bytes, const Schedule& schedule, const std::function<void()>& kernel)
    : kernel_(kernel), schedule_(schedule), random_(schedule.seed * 2654435761U + 1) {
  const std::size_t count = std::size_t{size.x} * size.y * size.z;
  for (std::size_t i = 0; i < count; ++i) {
    auto thread = std::make_unique<Thread>();
    const auto flat = static_cast<unsigned>(i);
    thread->block = this;
    thread->position = {{flat % size.x, flat / size.x % size.y, flat / size.x / size.y}, {}, size, grid, flat % kWarpLanes};
    thread->warp = i / kWarpLanes;
    threads_.push_back(std::move(thread));
  }
  gatherings_.resize((count + kWarpLanes - 1) / kWarpLanes);
  if (dynamic_shared_bytes > 0) dynamic_shared_ = std::make_unique<SharedMemory>(dynamic_shared_bytes);
}

Block::~Block() = default;

Block& Block::current() {
  if (running_block == nullptr) std::abort();
  return *running_block;
}

Block::Thread& Block::running() { return *threads_[running_]; }

const ThreadPosition& Block::position() const { return threads_[running_]->position; }

std::string Block::run(uint3 index) {
  running_block = this;
  for (auto& [key, memory] : shared_) {
    if (memory->live()) memory->reset();
  }
  if (dynamic_shared_) dynamic_shared_->reset();
  for (auto& warp : gatherings_) warp.clear();
  at_barrier_ = 0;
  failure_.clear();
  for (auto& thread : threads_) {
    thread->position.block_index = index;
    thread->state = State::kReady;
    thread->open_copies.clear();
    thread->committed_copies.clear();
    thread->fiber.prepare(
        [](void* argument) {
          auto& self = *static_cast<Thread*>(argument);
          self.block->kernel_();
          self.state = State::kDone;
          self.fiber.suspend();
        },
        thread.get());
  }
  std::vector<std::size_t> order(threads_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (schedule_.threads == ThreadOrder::kDown) std::reverse(order.begin(), order.end());
  std::size_t done = 0;
  while (done < threads_.size() && failure_.empty()) {
    if (schedule_.threads == ThreadOrder::kShuffled) {
      for (std::size_t i = order.size() - 1; i > 0; --i) {
        random_ ^= random_ << 13;
        random_ ^= random_ >> 17;
        random_ ^= random_ << 5;
        std::swap(order[i], order[random_ % (i + 1)]);
      }
    }
    bool progress = false;
    for (const std::size_t i : order) {
      if (threads_[i]->state != State::kReady) continue;
      progress = true;
      running_ = i;
      threads_[i]->fiber.resume();
      if (threads_[i]->state == State::kDone) ++done;
      if (!failure_.empty()) break;
      // The lanes of its warp that it has set free, and itself, come before other warps.
      const bool last_of_warp = i % kWarpLanes == kWarpLanes - 1 || i + 1 == threads_.size();
      if (schedule_.threads == ThreadOrder::kWarpAhead && last_of_warp) done += run_ahead(threads_[i]->warp);
      if (!failure_.empty()) break;
    }
    if (at_barrier_ > 0 && at_barrier_ + done == threads_.size()) {
      for (auto& thread : threads_) {
        if (thread->state == State::kAtBarrier) thread->state = State::kReady;
      }
      at_barrier_ = 0;
      progress = true;
    }
    if (!progress) fail(describe_deadlock());
  }
  running_block = nullptr;
  return failure_;
}

std::size_t Block::run_ahead(std::size_t warp) {
  const std::size_t begin = warp * kWarpLanes;
  const std::size_t end = std::min(begin + kWarpLanes, threads_.size());
  std::size_t done = 0;
  bool progress = true;
  while (progress && failure_.empty()) {
    progress = false;
    for (std::size_t i = begin; i < end && failure_.empty(); ++i) {
      if (threads_[i]->state != State::kReady) continue;
      progress = true;
      running_ = i;
      threads_[i]->fiber.resume();
      if (threads_[i]->state == State::kDone) ++done;
    }
  }
  return done;
}

void Block::fail(const std::string& reason) {
  if (failure_.empty()) failure_ = reason;
}

void Block::stop_for_ever() {
  for (;;) running().fiber.suspend();
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
  for (const auto& thread : threads_) {
    if (thread->state == State::kDone) ++done;
    if (thread->state == State::kDone || shown == kShown) continue;
    ++shown;
    text += " " + describe(*thread) + (thread->state == State::kAtBarrier ? " at the barrier " : " at the warp operation ") +
            place(thread->file, thread->line) + ";";
  }
  return text + " " + std::to_string(done) + " have ended.";
}

void Block::synchronize(const char* file, int line) {
  Thread& self = running();
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
  self.fiber.suspend();
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
  Thread& self = running();
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
  LaneValues& values = gathering.values[gathering.turn];
  std::memcpy(values[self.position.lane].data(), value, bytes);
  gathering.arrived |= own_bit;
  self.file = file;
  self.line = line;
  if (gathering.arrived == mask) {
    gathering.arrived = 0;
    gathering.turn ^= 1U;
    for (unsigned lane = 0; lane < kWarpLanes; ++lane) {
      if (((mask >> lane) & 1U) != 0) threads_[self.warp * kWarpLanes + lane]->state = State::kReady;
    }
  } else {
    self.state = State::kAtExchange;
  }
  self.fiber.suspend();
  return values;
}

void* Block::shared_variable(const void* key, std::size_t bytes) {
  std::unique_ptr<SharedMemory>& memory = shared_[key];
  if (!memory) memory = std::make_unique<SharedMemory>(bytes);
  return memory->use();
}

void* Block::dynamic_shared() {
  if (!dynamic_shared_) {
    fail(describe(running()) + " uses dynamic shared memory, of which the launch gives none");
    stop_for_ever();
  }
  return dynamic_shared_->use();
}

void Block::copy_async(void* target, const void* source, unsigned bytes) {
  if (reinterpret_cast<std::uintptr_t>(target) % kExchangedBytes != 0 ||
      (bytes > 0 && reinterpret_cast<std::uintptr_t>(source) % kExchangedBytes != 0) || bytes > kExchangedBytes) {
    fail(describe(running()) + " copies asynchronously from or to an address that is not a multiple of 16");
    stop_for_ever();
  }
  // Nobody may rely on the bytes before they are awaited.
  std::memset(target, kPoison, kExchangedBytes);
  running().open_copies.push_back({target, source, bytes});
}

void Block::commit_copies() {
  Thread& self = running();
  self.committed_copies.push_back(std::move(self.open_copies));
  self.open_copies.clear();
}

void Block::await_copies(std::size_t pending_groups) {
  Thread& self = running();
  while (self.committed_copies.size() > pending_groups) {
    for (const PendingCopy& copy : self.committed_copies.front()) {
      std::memset(copy.target, 0, kExchangedBytes);
      if (copy.bytes > 0) std::memcpy(copy.target, copy.source, copy.bytes);
    }
    self.committed_copies.pop_front();
  }
}

}  // namespace secateur::cuda_on_host
