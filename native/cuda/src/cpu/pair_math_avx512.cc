#include <immintrin.h>

#include "cpu/pair_math.h"
#include "cpu/vector_math.h"

namespace secateur::cpu::avx512 {

namespace {

constexpr std::size_t kFloats = 16;

void narrow(const float* source, std::size_t size, std::uint16_t* result) {
  const __m512i taking_turns = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  for (std::size_t i = 0; i < size; i += 2 * kFloats) {
    const __m512i low = _mm512_castsi256_si512(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_load_ps(source + i))));
    const __m512i high = _mm512_castsi256_si512(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_load_ps(source + i + kFloats))));
    _mm512_store_si512(result + i, _mm512_permutex2var_epi64(low, taking_turns, high));
  }
}

void add_sparse_products(const std::uint32_t* starts, const std::uint8_t* columns, const std::uint16_t* values, std::size_t rows,
                         const std::uint16_t* inputs, float* sums) {
  constexpr std::size_t kVectors = kTokenPanel / kFloats;
  for (std::size_t row = 0; row < rows; ++row) {
    float* const target = sums + row * kTokenPanel;
    __m512 sum[kVectors];
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kVectors; ++i) sum[i] = _mm512_load_ps(target + i * kFloats);
    for (std::size_t j = 2 * std::size_t{starts[row]}; j < 2 * std::size_t{starts[row + 1]}; j += 2) {
      const std::uint32_t pair = values[j] | static_cast<std::uint32_t>(values[j + 1]) << 16;
      const auto both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pair)));
      const std::uint16_t* const first = inputs + columns[j] * kTokenPanel;
      const std::uint16_t* const second = inputs + columns[j + 1] * kTokenPanel;
#pragma GCC unroll 4
      for (std::size_t i = 0; i < kVectors; i += 2) {
        const __m512i x = _mm512_load_si512(first + i * kFloats);
        const __m512i y = _mm512_load_si512(second + i * kFloats);
        sum[i] = _mm512_dpbf16_ps(sum[i], reinterpret_cast<__m512bh>(_mm512_unpacklo_epi16(x, y)), both);
        sum[i + 1] = _mm512_dpbf16_ps(sum[i + 1], reinterpret_cast<__m512bh>(_mm512_unpackhi_epi16(x, y)), both);
      }
    }
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kVectors; ++i) _mm512_store_ps(target + i * kFloats, sum[i]);
  }
}

}  // namespace

extern const PairMath kPairMath;
const PairMath kPairMath = {.narrow = narrow, .add_sparse_products = add_sparse_products};

}  // namespace secateur::cpu::avx512
