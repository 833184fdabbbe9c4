#include "secateur/thread_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

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
