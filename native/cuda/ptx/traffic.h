// What a kernel asks of memory, counted exactly: bytes, the sectors that a warp's accesses touch, and the turns that banks of shared memory
// take beyond those that are needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

namespace secateur::ptx {

struct Access {
  bool shared = false;
  bool writes = false;
  std::uint64_t address = 0;
  unsigned bytes = 0;
};

class Traffic {
 public:
  static constexpr std::size_t kSectorBytes = 32;

  struct Counts {
    std::uint64_t read_bytes = 0;
    std::uint64_t written_bytes = 0;
    std::uint64_t read_sectors = 0;
    std::uint64_t written_sectors = 0;
  };

  // One lane's access; lanes of a warp that execute an instruction for the same time do so together.
  void add(std::size_t warp, std::size_t instruction, std::size_t repetition, const Access& access) {
    together_[{warp, instruction, repetition}].push_back(access);
  }
  // Adds up what the block has done.
  void finish_block();

  const Counts& global() const { return global_; }
  std::uint64_t bank_conflicts() const { return bank_conflicts_; }

 private:
  std::map<std::tuple<std::size_t, std::size_t, std::size_t>, std::vector<Access>> together_;
  Counts global_;
  std::uint64_t bank_conflicts_ = 0;
};

}  // namespace secateur::ptx
