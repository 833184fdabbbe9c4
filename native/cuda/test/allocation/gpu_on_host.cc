#include <ucontext.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cuda_on_host.h"

namespace secateur::gpu_on_host {
namespace {

constexpr std::size_t kStackBytes = 128 * 1024;
constexpr unsigned kWarpLanes = 32;

enum class State { kRunnable, kAtBlockBarrier, kAtExchange, kDone };

struct Fiber {
  Thread thread;
  State state = State::kRunnable;
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  std::uint64_t bits = 0;
};

struct Block {
  std::vector<Fiber> fibers;
  std::map<const void*, std::vector<unsigned char>> shared;
  const std::function<void()>* kernel = nullptr;
  ucontext_t scheduler;
  std::size_t running = 0;
};

ThreadOrder thread_order = ThreadOrder::kUp;
Block* block_now = nullptr;

Fiber& fiber_now() { return block_now->fibers[block_now->running]; }

void fiber_main() {
  (*block_now->kernel)();
  fiber_now().state = State::kDone;
  swapcontext(&fiber_now().context, &block_now->scheduler);
}

void wait_as(State state) {
  Fiber& fiber = fiber_now();
  fiber.state = state;
  swapcontext(&fiber.context, &block_now->scheduler);
}

// Wakes fibers [begin, end) when all of them that are not done wait in `state`; exchanges need every lane.
bool release(std::size_t begin, std::size_t end, State state) {
  std::size_t waiting = 0;
  std::size_t done = 0;
  for (std::size_t i = begin; i < end; ++i) {
    waiting += block_now->fibers[i].state == state;
    done += block_now->fibers[i].state == State::kDone;
  }
  const bool complete = state == State::kAtExchange ? waiting == kWarpLanes : waiting > 0 && waiting + done == end - begin;
  if (!complete) return false;
  for (std::size_t i = begin; i < end; ++i) {
    if (block_now->fibers[i].state == state) block_now->fibers[i].state = State::kRunnable;
  }
  return true;
}

void run_block(uint3 index, dim3 grid, dim3 size, const std::function<void()>& kernel) {
  Block block;
  block.kernel = &kernel;
  block_now = &block;
  const std::size_t threads = std::size_t{size.x} * size.y * size.z;
  block.fibers.resize(threads);
  for (std::size_t i = 0; i < threads; ++i) {
    Fiber& fiber = block.fibers[i];
    const auto flat = static_cast<unsigned>(i);
    fiber.thread = {{flat % size.x, flat / size.x % size.y, flat / size.x / size.y}, index, size, grid};
    fiber.stack = std::make_unique<char[]>(kStackBytes);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  std::size_t done = 0;
  while (done < threads) {
    bool progress = false;
    for (std::size_t turn = 0; turn < threads; ++turn) {
      block.running = thread_order == ThreadOrder::kUp ? turn : threads - 1 - turn;
      if (fiber_now().state != State::kRunnable) continue;
      progress = true;
      swapcontext(&block.scheduler, &fiber_now().context);
      done += fiber_now().state == State::kDone;
    }
    for (std::size_t begin = 0; begin + kWarpLanes <= threads; begin += kWarpLanes) {
      progress |= release(begin, begin + kWarpLanes, State::kAtExchange);
    }
    progress |= release(0, threads, State::kAtBlockBarrier);
    if (!progress) throw std::runtime_error("threads of the kernel wait for each other for ever");
  }
}

}  // namespace

const Thread& current() { return fiber_now().thread; }

void wait_for_block() { wait_as(State::kAtBlockBarrier); }

// The second wait keeps a lane from giving its next value before the others have taken this one.
std::uint64_t exchange(std::uint64_t bits, unsigned distance) {
  fiber_now().bits = bits;
  wait_as(State::kAtExchange);
  const std::uint64_t taken = block_now->fibers[block_now->running ^ distance].bits;
  wait_as(State::kAtExchange);
  return taken;
}

void* shared_variable(const void* key, std::size_t bytes) {
  return block_now->shared.try_emplace(key, bytes, static_cast<unsigned char>(0xff)).first->second.data();
}

void set_thread_order(ThreadOrder order) { thread_order = order; }

cudaError_t run(dim3 grid, dim3 block, const std::function<void()>& kernel) {
  constexpr std::size_t kMaximumThreads = 1024;
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaximumThreads || grid.x == 0) return cudaErrorInvalidConfiguration;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) run_block({x, y, z}, grid, block, kernel);
    }
  }
  return cudaSuccess;
}

}  // namespace secateur::gpu_on_host
