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

std::span<const std::uint8_t> StateBuffer::content() const {
  if (type_ == HiddenStates::kF32) return {reinterpret_cast<const std::uint8_t*>(wide_.data()), wide_.size() * sizeof(float)};
  return {reinterpret_cast<const std::uint8_t*>(narrow_.data()), narrow_.size() * sizeof(std::uint16_t)};
}

void StateBuffer::copy_from(std::span<const std::uint8_t> content) {
  void* const values = type_ == HiddenStates::kF32 ? static_cast<void*>(wide_.data()) : narrow_.data();
  std::memcpy(values, content.data(), content.size());
}

}  // namespace secateur::cpu
