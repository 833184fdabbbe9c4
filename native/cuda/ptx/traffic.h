// What a kernel asks of memory, counted exactly: bytes, the sectors that a warp's accesses touch, and the turns that banks of shared memory
// take beyond those that are needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace secateur::ptx {

struct Access {
  bool shared = false;
  bool writes = false;
  // Of its warp.
  unsigned lane = 0;
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

  // What the lanes of a warp do together, with one instruction: all of them read or all write, in one space.
  void add(std::span<const Access> together);

  const Counts& global() const { return global_; }
  std::uint64_t bank_conflicts() const { return bank_conflicts_; }

 private:
  Counts global_;
  std::uint64_t bank_conflicts_ = 0;
};

}  // namespace secateur::ptx
