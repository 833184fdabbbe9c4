#include "cpu/element_type.h"

#include <bit>
#include <cstring>

#include "cpu/vectorized.h"

namespace secateur::cpu {

namespace {

SECATEUR_VECTORIZED void widen_bf16(const std::uint16_t* source, std::size_t count, float* result) {
  for (std::size_t i = 0; i < count; ++i) {
    result[i] = std::bit_cast<float>(static_cast<std::uint32_t>(source[i]) << 16);
  }
}

// Shifts exponent and mantissa into place and lets a multiplication rescale them, which gives subnormals their value too.
SECATEUR_VECTORIZED void widen_f16(const std::uint16_t* source, std::size_t count, float* result) {
  constexpr float kRescale = 0x1.0p112F;
  constexpr std::uint32_t kInfinityExponent = 0x7f800000U;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t bits = source[i];
    const std::uint32_t magnitude = (bits & 0x7fffU) << 13;
    const std::uint32_t scaled = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * kRescale);
    const std::uint32_t special = (bits & 0x7c00U) == 0x7c00U ? kInfinityExponent : 0U;
    result[i] = std::bit_cast<float>(scaled | special | ((bits & 0x8000U) << 16));
  }
}

constexpr std::size_t kBlock = 4096;

}  // namespace

std::size_t bytes_of(ElementType type) { return type == ElementType::kF32 ? 4 : 2; }

void widen(ElementType type, const std::uint8_t* source, std::size_t count, float* result) {
  if (type == ElementType::kF32) {
    std::memcpy(result, source, count * sizeof(float));
    return;
  }
  std::uint16_t aligned[kBlock];
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t size = count - begin < kBlock ? count - begin : kBlock;
    std::memcpy(aligned, source + 2 * begin, 2 * size);
    (type == ElementType::kBF16 ? widen_bf16 : widen_f16)(aligned, size, result + begin);
  }
}

}  // namespace secateur::cpu
