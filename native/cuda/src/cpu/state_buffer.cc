#include "cpu/state_buffer.h"

#include <cstring>

#include "cpu/vector_math.h"

namespace secateur::cpu {

StateBuffer::StateBuffer(HiddenStates type, MemoryBudget& budget, std::size_t values, const std::string& purpose) : type_(type) {
  if (type == HiddenStates::kBF16) {
    narrow_ = Buffer<std::uint16_t>(budget, values, purpose);
  } else {
    wide_ = Buffer<float>(budget, values, purpose);
  }
}

std::uint64_t StateBuffer::bytes(HiddenStates type, std::uint64_t values) {
  return values * (type == HiddenStates::kBF16 ? sizeof(std::uint16_t) : sizeof(float));
}

const float* StateBuffer::read(std::size_t begin, std::size_t count, float* room) const {
  if (type_ == HiddenStates::kF32) return wide_.data() + begin;
  vector_math().widen_bf16(narrow_.data() + begin, count, room);
  return room;
}

void StateBuffer::write(std::size_t begin, std::size_t count, const float* values) {
  if (type_ == HiddenStates::kF32) {
    std::memcpy(wide_.data() + begin, values, count * sizeof(float));
  } else {
    vector_math().narrow_bf16(values, count, narrow_.data() + begin);
  }
}

}  // namespace secateur::cpu
