// The scans for one instruction set. Included once per set, each time compiled with that set's flags and inside its own namespace, so that
// no function compiled for a newer processor can be linked in place of an older one's.
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "row_scan.h"

namespace secateur::allocation::SECATEUR_ROW_SCAN_NAMESPACE {
namespace {

// Columns marked together, without a branch between them.
constexpr std::size_t kBlock = 64;
constexpr std::size_t kVectorBytes = SECATEUR_ROW_SCAN_VECTOR_BYTES;
constexpr std::size_t kLanes = kVectorBytes / sizeof(float);
static_assert(kLanes <= kScanSlack);

// Aligned like their elements, for rows begin anywhere.
using Floats = float __attribute__((vector_size(kVectorBytes), aligned(sizeof(float)), may_alias));
using Keys = std::uint32_t __attribute__((vector_size(kVectorBytes), aligned(sizeof(float)), may_alias));
// Keys are below 2^31, and signed comparisons the ones that every instruction set has.
using SignedKeys = std::int32_t __attribute__((vector_size(kVectorBytes), aligned(sizeof(float)), may_alias));
using Buckets = std::uint16_t __attribute__((vector_size(kVectorBytes / 2), aligned(sizeof(std::uint16_t)), may_alias));

constexpr std::uint32_t kWithoutSign = 0x7fff'ffffU;

inline Keys load_keys(const void* values) { return *static_cast<const Keys*>(values); }
inline SignedKeys load_signed(const std::uint32_t* values) { return *reinterpret_cast<const SignedKeys*>(values); }
inline SignedKeys larger_of(SignedKeys a, SignedKeys b) { return a > b ? a : b; }
inline std::uint32_t largest_of(SignedKeys keys) {
  std::int32_t largest = 0;
  for (std::size_t lane = 0; lane < kLanes; ++lane) largest = keys[lane] > largest ? keys[lane] : largest;
  return static_cast<std::uint32_t>(largest);
}

// first, first + 1, and so on.
inline Keys numbers_from(std::size_t first) {
  alignas(kVectorBytes) static constexpr std::uint32_t kNumbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load_keys(kNumbers) + static_cast<std::uint32_t>(first);
}

// Where a lane of `a` is below that of `b`, one bit each.
inline std::uint32_t below(Keys a, Keys b) {
#if SECATEUR_ROW_SCAN_VECTOR_BYTES == 64
  std::uint32_t bits = _mm512_cmplt_epu32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b));
  // In a register: g++ 12 may put a mask aside in two bytes of memory and count the bits of four.
  asm("" : "+r"(bits));
  return bits;
#else
  const Keys truth = reinterpret_cast<Keys>(a < b);
#if SECATEUR_ROW_SCAN_VECTOR_BYTES == 32
  return static_cast<std::uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(truth)));
#elif defined(__SSE2__)
  return static_cast<std::uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(truth)));
#else
  std::uint32_t bits = 0;
  for (std::size_t lane = 0; lane < kLanes; ++lane) bits |= (truth[lane] & 1U) << lane;
  return bits;
#endif
#endif
}

// The lanes with a bit, together at the front; what follows them is arbitrary.
#if SECATEUR_ROW_SCAN_VECTOR_BYTES == 64
inline Keys compress(Keys values, std::uint32_t bits) {
  return reinterpret_cast<Keys>(_mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), reinterpret_cast<__m512i>(values)));
}
#elif SECATEUR_ROW_SCAN_VECTOR_BYTES == 32
struct CompressedLanes {
  std::uint8_t of[256][8];
};
constexpr CompressedLanes kCompressedLanes = []() {
  CompressedLanes lanes = {};
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    std::size_t next = 0;
    for (std::uint8_t lane = 0; lane < 8; ++lane) {
      if ((bits >> lane & 1U) != 0) lanes.of[bits][next++] = lane;
    }
  }
  return lanes;
}();
inline Keys compress(Keys values, std::uint32_t bits) {
  const __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kCompressedLanes.of[bits])));
  return reinterpret_cast<Keys>(_mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(values), lanes));
}
#else
inline Keys compress(Keys values, std::uint32_t bits) {
  Keys compressed = {};
  for (std::size_t next = 0; bits != 0; bits &= bits - 1) compressed[next++] = values[__builtin_ctz(bits)];
  return compressed;
}
#endif

// The keys of kLanes columns.
inline Keys keys_at(const RowScores& scores, std::size_t column) {
  Floats values = reinterpret_cast<Floats>(load_keys(scores.weights + column) & kWithoutSign);
  if (scores.scales != nullptr) values *= *reinterpret_cast<const Floats*>(scores.scales + column);
  return reinterpret_cast<Keys>(values);
}

inline std::uint32_t key_at(const RowScores& scores, std::size_t column) {
  float value = __builtin_fabsf(scores.weights[column]);
  if (scores.scales != nullptr) value *= scores.scales[column];
  return __builtin_bit_cast(std::uint32_t, value);
}

// Where a loop writes, scores are first copied: for all that the compiler knows what is written might change them.
std::uint32_t score(const RowScores& of_row, std::uint32_t* keys) {
  const RowScores scores = of_row;
  SignedKeys largest = {};
  std::size_t column = 0;
  for (; column + kLanes <= scores.columns; column += kLanes) {
    largest = larger_of(largest, reinterpret_cast<SignedKeys>(load_keys(scores.weights + column) & kWithoutSign));
    *reinterpret_cast<Keys*>(keys + column) = keys_at(scores, column);
  }
  std::uint32_t largest_weight = largest_of(largest);
  for (; column < scores.columns; ++column) {
    const std::uint32_t weight = __builtin_bit_cast(std::uint32_t, __builtin_fabsf(scores.weights[column]));
    largest_weight = weight > largest_weight ? weight : largest_weight;
    keys[column] = key_at(scores, column);
  }
  return largest_weight;
}

std::uint32_t bucket(const std::uint32_t* keys, std::size_t columns, std::uint32_t range, std::uint32_t shift, std::uint16_t* buckets) {
  SignedKeys largest_keys = {};
  std::size_t column = 0;
  for (; column + kLanes <= columns; column += kLanes) largest_keys = larger_of(largest_keys, load_signed(keys + column));
  std::uint32_t largest = largest_of(largest_keys);
  for (; column < columns; ++column) largest = keys[column] > largest ? keys[column] : largest;

  const std::uint32_t smallest = largest > range ? largest - range : 0;
  const SignedKeys smallest_keys = SignedKeys{} + static_cast<std::int32_t>(smallest);
  for (column = 0; column + kLanes <= columns; column += kLanes) {
    const Keys steps = reinterpret_cast<Keys>(larger_of(load_signed(keys + column), smallest_keys) - smallest_keys) >> shift;
    *reinterpret_cast<Buckets*>(buckets + column) = __builtin_convertvector(steps, Buckets);
  }
  for (; column < columns; ++column) {
    buckets[column] = static_cast<std::uint16_t>((keys[column] > smallest ? keys[column] - smallest : 0) >> shift);
  }
  return smallest;
}

std::size_t collect(const RowScores& of_row, std::uint32_t first_key, std::uint32_t keys, std::uint32_t* columns,
                    std::uint32_t* found_keys) {
  const RowScores scores = of_row;
  std::size_t found = 0;
  std::size_t column = 0;
  for (; column + kLanes <= scores.columns; column += kLanes) {
    const Keys row = keys_at(scores, column);
    const std::uint32_t bits = below(row - first_key, Keys{} + keys);
    *reinterpret_cast<Keys*>(columns + found) = compress(numbers_from(column), bits);
    *reinterpret_cast<Keys*>(found_keys + found) = compress(row, bits);
    found += static_cast<std::size_t>(__builtin_popcount(bits));
  }
  for (; column < scores.columns; ++column) {
    const std::uint32_t key = key_at(scores, column);
    columns[found] = static_cast<std::uint32_t>(column);
    found_keys[found] = key;
    found += key - first_key < keys ? 1 : 0;
  }
  return found;
}

void settle(const std::uint32_t* keys, const std::uint32_t* columns, std::size_t count, std::size_t reach, std::uint32_t* order) {
  for (std::size_t first = 0; first < count; first += kLanes) {
    const SignedKeys own = load_signed(keys + first);
    // Comparisons are -1 where they hold.
    SignedKeys places = reinterpret_cast<SignedKeys>(numbers_from(first));
    for (std::size_t distance = 1; distance < reach; ++distance) {
      places -= load_signed(keys + first + distance) < own;
      places += load_signed(keys + first - distance) > own;
    }
    const std::size_t width = count - first < kLanes ? count - first : kLanes;
    for (std::size_t lane = 0; lane < width; ++lane) order[places[lane]] = columns[first + lane];
  }
}

// Which of the columns [first, first + 64) have keys below `limit`, as bits, the first column's lowest.
inline std::uint64_t block_below(const RowScores& scores, std::size_t first, std::uint32_t limit) {
  std::uint64_t bits = 0;
  const std::size_t count = scores.columns - first < kBlock ? scores.columns - first : kBlock;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) bits |= std::uint64_t{below(keys_at(scores, first + i), Keys{} + limit)} << i;
  for (; i < count; ++i) bits |= std::uint64_t{key_at(scores, first + i) < limit} << i;
  return bits;
}

void mark_below(const RowScores& of_row, std::uint32_t key_limit, std::size_t column_limit, std::uint8_t* bits) {
  const RowScores scores = of_row;
  for (std::size_t first = 0; first < scores.columns; first += kBlock) {
    const std::size_t before = column_limit > first ? column_limit - first : 0;
    std::uint64_t block = block_below(scores, first, before < kBlock ? key_limit : key_limit + 1);
    if (before > 0 && before < kBlock) block |= block_below(scores, first, key_limit + 1) & ((std::uint64_t{1} << before) - 1);
    const std::size_t count = scores.columns - first < kBlock ? scores.columns - first : kBlock;
    for (std::size_t i = 0; i < count; i += 8) *bits++ = static_cast<std::uint8_t>(block >> i);
  }
}

}  // namespace

extern const RowScanFunctions kRowScanFunctions;
const RowScanFunctions kRowScanFunctions = {
    .score = score, .bucket = bucket, .collect = collect, .settle = settle, .mark_below = mark_below};

}  // namespace secateur::allocation::SECATEUR_ROW_SCAN_NAMESPACE
