#include "cpu/element_type.h"

#include <bit>
#include <cstring>

#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kBlock = 4096;

std::uint16_t narrow_f16(float value) {
  constexpr std::uint32_t kInfinity = 0x7f800000;
  // Half way from the largest float16 to the next that would be.
  constexpr std::uint32_t kOverflow = 0x477ff000;
  constexpr std::uint32_t kSmallestNormal = 0x38800000;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  std::uint32_t narrowed = 0;
  if (magnitude > kInfinity) {
    narrowed = 0x7e00;
  } else if (magnitude >= kOverflow) {
    narrowed = 0x7c00;
  } else if (magnitude >= kSmallestNormal) {
    // The exponent's bias changes by 112; what is added below the last bit rounds to the nearest.
    narrowed = (magnitude - (112U << 23) + 0xfffU + (magnitude >> 13 & 1U)) >> 13;
  } else {
    // The last bit of a sum with 0.5 is worth as much as the last of a float16 this small.
    narrowed = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - std::bit_cast<std::uint32_t>(0.5F);
  }
  return static_cast<std::uint16_t>(sign | narrowed);
}

}  // namespace

void widen(ElementType type, const std::uint8_t* source, std::size_t count, float* result) {
  if (type == ElementType::kF32) {
    std::memcpy(result, source, count * sizeof(float));
    return;
  }
  std::uint16_t aligned[kBlock];
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t size = count - begin < kBlock ? count - begin : kBlock;
    std::memcpy(aligned, source + 2 * begin, 2 * size);
    (type == ElementType::kBF16 ? vector_math().widen_bf16 : vector_math().widen_f16)(aligned, size, result + begin);
  }
}

void narrow(ElementType type, const float* source, std::size_t count, std::uint8_t* result) {
  if (type == ElementType::kF32) {
    std::memcpy(result, source, count * sizeof(float));
    return;
  }
  std::uint16_t aligned[kBlock];
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t size = count - begin < kBlock ? count - begin : kBlock;
    if (type == ElementType::kBF16) {
      vector_math().narrow_bf16(source + begin, size, aligned);
    } else {
      for (std::size_t i = 0; i < size; ++i) aligned[i] = narrow_f16(source[begin + i]);
    }
    std::memcpy(result + 2 * begin, aligned, 2 * size);
  }
}

}  // namespace secateur::cpu
