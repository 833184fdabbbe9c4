#include "cpu/element_type.h"

#include <cstring>

#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kBlock = 4096;

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

}  // namespace secateur::cpu
