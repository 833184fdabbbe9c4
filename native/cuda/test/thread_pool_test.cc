#include "secateur/thread_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <barrier>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "secateur/error.h"

#if defined(__linux__)
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

using secateur::Error;
using secateur::ErrorCode;
using secateur::Placement;
using secateur::ThreadPool;

TEST_CASE("every item is worked on once, loop after loop") {
  for (const std::size_t threads : {1U, 2U, 5U}) {
    ThreadPool pool(threads);
    CHECK(pool.size() == threads);
    for (std::size_t items = 0; items < 200; ++items) {
      std::vector<std::atomic<int>> seen(items);
      pool.parallel_for(items, [&](std::size_t item, std::size_t worker) {
        REQUIRE(worker < threads);
        ++seen[item];
      });
      for (const auto& count : seen) REQUIRE(count == 1);
    }
  }
}

TEST_CASE("an exception ends the loop, is thrown to the caller, and the pool goes on") {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    CHECK_THROWS_WITH(pool.parallel_for(100,
                                        [](std::size_t item, std::size_t) {
                                          if (item == 7) throw std::runtime_error("seven");
                                        }),
                      "seven");
    std::atomic<int> done = 0;
    pool.parallel_for(10, [&](std::size_t, std::size_t) { ++done; });
    REQUIRE(done == 10);
  }
}

#if defined(__linux__)

namespace {

// Processors that the calling thread may run on.
std::vector<std::size_t> allowed_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  REQUIRE(sched_getaffinity(0, sizeof(set), &set) == 0);
  std::vector<std::size_t> processors;
  for (std::size_t processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (CPU_ISSET(processor, &set)) processors.push_back(processor);
  }
  return processors;
}

// What every thread but the first tells, which is the test's own.
template <class Told>
std::vector<Told> ask_threads(ThreadPool& pool, const auto& question) {
  std::vector<Told> answers(pool.size());
  // Nobody takes a second item before everybody has one.
  std::barrier everybody(static_cast<std::ptrdiff_t>(pool.size()));
  pool.parallel_for(pool.size(), [&](std::size_t, std::size_t worker) {
    everybody.arrive_and_wait();
    answers[worker] = question();
  });
  return answers;
}

}  // namespace

TEST_CASE("each thread runs on its own processor") {
  const std::vector<std::size_t> allowed = allowed_processors();
  // The last processors first: the order is the threads'.
  Placement placement;
  placement.processors.assign(allowed.rbegin(), allowed.rend());
  placement.processors.push_back(allowed.back());
  ThreadPool pool(placement.processors.size(), placement);
  const auto settled = ask_threads<std::vector<std::size_t>>(pool, allowed_processors);
  CHECK(settled[0] == allowed);
  for (std::size_t thread = 1; thread < settled.size(); ++thread) {
    CHECK(settled[thread] == std::vector<std::size_t>{placement.processors[thread]});
  }
}

TEST_CASE("each thread prefers the memory of its NUMA node") {
  Placement placement;
  placement.memory_node = 0;
  std::optional<ThreadPool> pool;
  try {
    pool.emplace(3, placement);
  } catch (const Error& error) {
    REQUIRE(error.code() == ErrorCode::kFailedPrecondition);
    MESSAGE("skipped: " << error.what());
    return;
  }
  const auto policy = [] {
    int mode = -1;
    REQUIRE(syscall(SYS_get_mempolicy, &mode, nullptr, 0UL, nullptr, 0UL) == 0);
    return mode;
  };
  CHECK(ask_threads<int>(*pool, policy) == std::vector<int>{MPOL_DEFAULT, MPOL_PREFERRED, MPOL_PREFERRED});
}

TEST_CASE("processors and nodes that are not there, or too few, are refused by name") {
  const auto check_refused = [](const Placement& placement, ErrorCode code, const std::string& text) {
    try {
      ThreadPool pool(3, placement);
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.code() == code);
      CHECK_MESSAGE(std::string(error.what()).find(text) != std::string::npos, std::string(error.what()));
    }
  };
  check_refused({{0, 60000, 0}, {}}, ErrorCode::kFailedPrecondition, "processor 60000");
  check_refused({{0, 1 << 20, 0}, {}}, ErrorCode::kInvalidArgument, "below 65536");
  check_refused({{0}, {}}, ErrorCode::kInvalidArgument, "too few");
  check_refused({{}, 60000}, ErrorCode::kFailedPrecondition, "NUMA node 60000");
}

#endif
