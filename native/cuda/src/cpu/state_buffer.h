// The hidden states of a group, as they are kept between blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "secateur/backend.h"

namespace secateur::cpu {

// Threads may read and write different values at a time.
class StateBuffer {
 public:
  StateBuffer(HiddenStates type, MemoryBudget& budget, std::size_t values, const std::string& purpose);

  static std::uint64_t bytes(HiddenStates type, std::uint64_t values);

  // The values from `begin` on: where they are kept, or widened into `room`, which takes `count`.
  const float* read(std::size_t begin, std::size_t count, float* room) const;
  // bfloat16 is rounded to the nearest, ties to even.
  void write(std::size_t begin, std::size_t count, const float* values);

  // All values, as they are kept.
  std::span<const std::uint8_t> content() const;
  // Of another one's content, which is as large.
  void copy_from(std::span<const std::uint8_t> content);

 private:
  HiddenStates type_;
  // One of the two, by the type.
  Buffer<float> wide_;
  Buffer<std::uint16_t> narrow_;
};

}  // namespace secateur::cpu
