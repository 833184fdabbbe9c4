// The scans for one instruction set. Included once per set, each time compiled with that set's flags and inside its own namespace, so that
// no function compiled for a newer processor can be linked in place of an older one's.
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "row_scan.h"

namespace secateur::allocation::SECATEUR_ROW_SCAN_NAMESPACE {
namespace {

// Columns looked at together, without a branch between them.
constexpr std::size_t kBlock = 64;
constexpr std::size_t kVectorBytes = SECATEUR_ROW_SCAN_VECTOR_BYTES;
constexpr std::size_t kLanes = kVectorBytes / sizeof(float);

// Aligned like their elements, for rows begin anywhere.
using Floats = float __attribute__((vector_size(kVectorBytes), aligned(sizeof(float)), may_alias));
using Keys = std::uint32_t __attribute__((vector_size(kVectorBytes), aligned(sizeof(float)), may_alias));

// The lanes of a comparison's result, whose bits are all equal, as one bit each.
inline std::uint64_t bits_of(Keys truth) {
#if SECATEUR_ROW_SCAN_VECTOR_BYTES == 64
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(truth));
#elif SECATEUR_ROW_SCAN_VECTOR_BYTES == 32
  return static_cast<std::uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(truth)));
#elif defined(__SSE2__)
  return static_cast<std::uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(truth)));
#else
  std::uint64_t bits = 0;
  for (std::size_t lane = 0; lane < kLanes; ++lane) bits |= std::uint64_t{truth[lane] & 1U} << lane;
  return bits;
#endif
}

// The columns [first, first + 64) for which is_found holds, as bits, the first column's lowest. is_found(keys) is all ones where it does.
template <class IsFound>
inline std::uint64_t look(const RowScores& scores, std::size_t first, IsFound is_found) {
  constexpr std::uint32_t kWithoutSign = 0x7fff'ffffU;
  std::uint64_t bits = 0;
  const std::size_t count = scores.columns - first < kBlock ? scores.columns - first : kBlock;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Floats values = *reinterpret_cast<const Floats*>(scores.weights + first + i);
    values = reinterpret_cast<Floats>(reinterpret_cast<Keys>(values) & kWithoutSign);
    if (scores.scales != nullptr) values *= *reinterpret_cast<const Floats*>(scores.scales + first + i);
    bits |= bits_of(is_found(reinterpret_cast<Keys>(values))) << i;
  }
  for (; i < count; ++i) {
    float value = __builtin_fabsf(scores.weights[first + i]);
    if (scores.scales != nullptr) value *= scores.scales[first + i];
    const Keys keys = Keys{} + __builtin_bit_cast(std::uint32_t, value);
    bits |= (bits_of(is_found(keys)) & 1U) << i;
  }
  return bits;
}

std::size_t collect(const RowScores& scores, std::uint32_t first_key, std::uint32_t keys, std::uint32_t* columns) {
  std::uint32_t* next = columns;
  for (std::size_t first = 0; first < scores.columns; first += kBlock) {
    const auto in_range = [=](Keys row) { return reinterpret_cast<Keys>(row - first_key < Keys{} + keys); };
    for (std::uint64_t bits = look(scores, first, in_range); bits != 0; bits &= bits - 1) {
      *next++ = static_cast<std::uint32_t>(first + static_cast<std::size_t>(__builtin_ctzll(bits)));
    }
  }
  return static_cast<std::size_t>(next - columns);
}

void mark_below(const RowScores& scores, std::uint32_t key_limit, std::size_t column_limit, std::uint8_t* bits) {
  for (std::size_t first = 0; first < scores.columns; first += kBlock) {
    const std::size_t left = column_limit > first ? column_limit - first : 0;
    const std::uint64_t before = left < kBlock ? (std::uint64_t{1} << left) - 1 : ~std::uint64_t{0};
    const auto is_below = [=](Keys row) { return reinterpret_cast<Keys>(row < Keys{} + key_limit); };
    const auto is_equal = [=](Keys row) { return reinterpret_cast<Keys>(row == Keys{} + key_limit); };
    const std::uint64_t block = look(scores, first, is_below) | (look(scores, first, is_equal) & before);
    const std::size_t count = scores.columns - first < kBlock ? scores.columns - first : kBlock;
    for (std::size_t i = 0; i < count; i += 8) *bits++ = static_cast<std::uint8_t>(block >> i);
  }
}

}  // namespace

extern const RowScanFunctions kRowScanFunctions;
const RowScanFunctions kRowScanFunctions = {.collect = collect, .mark_below = mark_below};

}  // namespace secateur::allocation::SECATEUR_ROW_SCAN_NAMESPACE
