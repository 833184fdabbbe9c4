#include "cuda/arena.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cuda/device_buffer.h"
#include "device_array.h"

namespace secateur::test {
namespace {

using gpu::End;

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t kBlock = gpu::kBlockAlignment;

struct Memory {
  explicit Memory(std::uint64_t limit) : budget(limit), arena(gpu::kDeviceMemory, budget, in_use) {}

  std::byte* take(std::uint64_t bytes, End end = End::kLow) { return static_cast<std::byte*>(arena.take(bytes, "a test", end)); }

  MemoryBudget budget;
  MemoryBudget in_use{kUnlimited};
  gpu::Arena arena;
};

template <class Work>
void check_out_of_memory(std::uint64_t needed, std::uint64_t available, Work&& work) {
  try {
    work();
    FAIL_CHECK("no error");
  } catch (const OutOfMemory& error) {
    CHECK(error.needed_bytes() == needed);
    CHECK(error.available_bytes() == available);
    CHECK(std::string(error.what()).find("a test") != std::string::npos);
  }
}

}  // namespace

TEST_CASE("an arena hands out aligned blocks from both ends and takes them back whole") {
  Memory memory(8 * kBlock);
  memory.arena.reserve(8 * kBlock, "a test");
  std::byte* const low = memory.take(1);
  std::byte* const high = memory.take(kBlock + 1, End::kHigh);
  std::byte* const next = memory.take(kBlock);
  CHECK(reinterpret_cast<std::uintptr_t>(low) % kBlock == 0);
  CHECK(high == low + 6 * kBlock);
  CHECK(next == low + kBlock);
  CHECK(memory.in_use.used_bytes() == 4 * kBlock);
  check_out_of_memory(5 * kBlock, 4 * kBlock, [&] { memory.take(5 * kBlock); });
  // In any order: what touches becomes one.
  memory.arena.give_back(low, 1);
  CHECK(memory.take(kBlock) == low);
  memory.arena.give_back(high, kBlock + 1);
  memory.arena.give_back(low, kBlock);
  memory.arena.give_back(next, kBlock);
  CHECK(memory.in_use.used_bytes() == 0);
  CHECK(memory.in_use.peak_bytes() == 4 * kBlock);
  CHECK(memory.take(8 * kBlock, End::kHigh) == low);
}

TEST_CASE("an arena without a plan grows within the budget, and gives unused memory up for a larger block") {
  constexpr std::uint64_t kLimit = std::uint64_t{20} << 20;
  Memory memory(kLimit + 100);
  CHECK(memory.budget.used_bytes() == 0);
  std::byte* const small = memory.take(10);
  const std::uint64_t first = memory.budget.used_bytes();
  CHECK(first < kLimit);
  std::byte* const large = memory.take(kLimit - first);
  CHECK(memory.budget.used_bytes() == kLimit);
  memory.arena.give_back(small, 10);
  memory.arena.give_back(large, kLimit - first);
  std::byte* const whole = memory.take(kLimit);
  CHECK(memory.budget.used_bytes() == kLimit);
  check_out_of_memory(kBlock, 0, [&] { memory.take(1); });
  memory.arena.give_back(whole, kLimit);
}

TEST_CASE("a device that has less than the budget allows is out of memory, with needed and free bytes") {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  constexpr std::size_t kRoom = 64 * kBlock;
  require_success(cudaMemGetInfo(&free_bytes, &total_bytes));
  cuda_on_host::set_device_bytes(total_bytes - free_bytes + kRoom);
  {
    Memory memory(kUnlimited);
    check_out_of_memory(kRoom + kBlock, kRoom, [&] { memory.arena.reserve(kRoom + kBlock, "a test"); });
    check_out_of_memory(kRoom + kBlock, kRoom, [&] { memory.take(kRoom + 1); });
    CHECK(memory.budget.used_bytes() == 0);
    // More than this is asked of the device at first.
    std::byte* const block = memory.take(kRoom);
    check_out_of_memory(kBlock, 0, [&] { memory.take(1); });
    memory.arena.give_back(block, kRoom);
  }
  cuda_on_host::set_device_bytes(total_bytes);
}

TEST_CASE("blocks of an arena never overlap, and the same calls get the same blocks") {
  constexpr std::size_t kBlocks = 200;
  const auto run = [](std::uint64_t seed) {
    struct Taken {
      std::uint64_t offset;
      std::uint64_t bytes;
    };
    Memory memory(kBlocks * kBlock);
    memory.arena.reserve(kBlocks * kBlock, "a test");
    std::byte* const base = memory.take(1);
    memory.arena.give_back(base, 1);
    std::minstd_rand random(static_cast<std::minstd_rand::result_type>(seed));
    std::vector<bool> used(kBlocks);
    std::vector<Taken> taken;
    std::vector<std::uint64_t> offsets;
    const auto mark = [&](const Taken& block, bool value) {
      for (std::uint64_t i = 0; i < gpu::whole_blocks(block.bytes) / kBlock; ++i) {
        REQUIRE(used[block.offset / kBlock + i] != value);
        used[block.offset / kBlock + i] = value;
      }
    };
    for (int step = 0; step < 2000; ++step) {
      if (!taken.empty() && random() % 2 == 0) {
        std::swap(taken[random() % taken.size()], taken.back());
        mark(taken.back(), false);
        memory.arena.give_back(base + taken.back().offset, taken.back().bytes);
        taken.pop_back();
        continue;
      }
      const std::uint64_t bytes = 1 + random() % (20 * kBlock);
      try {
        std::byte* const block = memory.take(bytes, random() % 2 == 0 ? End::kLow : End::kHigh);
        taken.push_back({static_cast<std::uint64_t>(block - base), bytes});
        mark(taken.back(), true);
        offsets.push_back(taken.back().offset);
      } catch (const OutOfMemory&) {
        // There is indeed no such range.
        std::uint64_t longest = 0;
        std::uint64_t length = 0;
        for (const bool one : used) longest = std::max(longest, length = one ? 0 : length + kBlock);
        CHECK(longest < bytes);
      }
    }
    return offsets;
  };
  for (const std::uint64_t seed : {1, 2, 3}) CHECK(run(seed) == run(seed));
}

TEST_CASE("buffers move with their blocks, and those of no values take none") {
  MemoryBudget budget(kUnlimited);
  MemoryBudget in_use(kUnlimited);
  gpu::SessionMemory memory(budget, in_use);
  gpu::DeviceBuffer<float> none(memory, 0, "a test");
  CHECK(none.empty());
  CHECK(in_use.used_bytes() == 0);
  gpu::DeviceBuffer<float> first(memory, 3, "a test");
  const float* const place = first.data();
  gpu::DeviceBuffer<float> second = std::move(first);
  CHECK(second.data() == place);
  second = {};
  CHECK(in_use.used_bytes() == 0);
  gpu::PinnedBuffer<float> pinned(memory, 3, "a test");
  CHECK(in_use.used_bytes() == 0);
  CHECK(memory.pinned_in_use.used_bytes() == kBlock);
  CHECK(budget.used_bytes() > 0);
}

}  // namespace secateur::test
