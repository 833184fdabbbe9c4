#include <immintrin.h>

#include "cpu/pair_math.h"
#include "cpu/vector_math.h"

// As in vector_math_loops.h, nothing here may be an inline function of others.
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

// Pairs of a vector.
constexpr std::size_t kPairs = 16;
using Pairs __attribute__((vector_size(64), may_alias)) = std::uint32_t;
using Halves __attribute__((vector_size(32), may_alias)) = std::uint16_t;
// Rows and vectors whose sums are held in registers.
constexpr std::size_t kRowTile = 6;
constexpr std::size_t kColumnTile = 4;
static_assert(kQueryTile % kRowTile == 0);

std::size_t lesser(std::size_t a, std::size_t b) { return a < b ? a : b; }

std::size_t pairs_of(std::size_t values) { return (values + 1) / 2; }

__mmask16 first_lanes(std::size_t count) { return count >= kFloats ? __mmask16{0xffff} : static_cast<__mmask16>((1U << count) - 1U); }

// Up to 32 values times `scale`, in their order, with zeros behind them.
__m512i narrow_values(const float* values, std::size_t count, __m512 scale) {
  const __m512 low = _mm512_maskz_loadu_ps(first_lanes(count), values);
  const __m512 high = count > kFloats ? _mm512_maskz_loadu_ps(first_lanes(count - kFloats), values + kFloats) : _mm512_setzero_ps();
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_mul_ps(scale, high), _mm512_mul_ps(scale, low)));
}

// panel[pair, key] of up to kKeyPanel keys, with zeros behind them.
void lay_out_keys(const AttentionHead& head, std::size_t begin, std::size_t count, std::uint32_t* panel) {
  const std::size_t pairs = pairs_of(head.size);
  for (std::size_t pair = 0; pair < pairs; pair += kPairs) {
    alignas(64) float rows[kKeyPanel][kPairs] = {};
    for (std::size_t key = 0; key < count; ++key) {
      const float* const values = head.keys + (begin + key) * head.key_stride + 2 * pair;
      _mm512_store_si512(rows[key], narrow_values(values, head.size - 2 * pair, _mm512_set1_ps(1.0F)));
    }
    vector_math(InstructionSet::kAvx512)
        .transpose(rows[0], kKeyPanel, lesser(kPairs, pairs - pair), kPairs, reinterpret_cast<float*>(panel + pair * kKeyPanel), kKeyPanel);
  }
}

// pairs[i, dimension]: the values of tokens 2i and 2i + 1.
void lay_out_values(const AttentionHead& head, std::size_t length, std::size_t padded_size, std::uint32_t* pairs) {
  for (std::size_t token = 0; token < length; token += 2) {
    const float* const row = head.values + token * head.key_stride;
    for (std::size_t i = 0; i < padded_size; i += kFloats) {
      const __mmask16 lanes = first_lanes(head.size > i ? head.size - i : 0);
      const auto bits_of = [&](const float* values, __mmask16 wanted) {
        const __m256bh narrowed = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(wanted, values + i));
        return __builtin_convertvector(reinterpret_cast<Halves>(narrowed), Pairs);
      };
      const Pairs even = bits_of(row, lanes);
      const Pairs odd = token + 1 < length ? bits_of(row + head.key_stride, lanes) : Pairs{};
      *reinterpret_cast<Pairs*>(pairs + token / 2 * padded_size + i) = even | odd << 16;
    }
  }
}

// sums[row, :] = Σ left[row, i] · right[i, :] over `terms` pairs, for kRowTile rows and Columns vectors.
template <std::size_t Columns>
void multiply_tile(const std::uint32_t* left, std::size_t left_stride, const std::uint32_t* right, std::size_t right_stride,
                   std::size_t terms, float* sums, std::size_t sums_stride) {
  __m512 sum[kRowTile][Columns];
#pragma GCC unroll 6
  for (std::size_t r = 0; r < kRowTile; ++r) {
#pragma GCC unroll 4
    for (std::size_t c = 0; c < Columns; ++c) sum[r][c] = _mm512_setzero_ps();
  }
  for (std::size_t i = 0; i < terms; ++i) {
    __m512bh operand[Columns];
#pragma GCC unroll 4
    for (std::size_t c = 0; c < Columns; ++c) {
      operand[c] = reinterpret_cast<__m512bh>(_mm512_load_si512(right + i * right_stride + c * kFloats));
    }
#pragma GCC unroll 6
    for (std::size_t r = 0; r < kRowTile; ++r) {
      const auto both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(left[r * left_stride + i])));
#pragma GCC unroll 4
      for (std::size_t c = 0; c < Columns; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], both, operand[c]);
    }
  }
#pragma GCC unroll 6
  for (std::size_t r = 0; r < kRowTile; ++r) {
#pragma GCC unroll 4
    for (std::size_t c = 0; c < Columns; ++c) _mm512_store_ps(sums + r * sums_stride + c * kFloats, sum[r][c]);
  }
}

// The same for any number of vectors.
void multiply_rows(const std::uint32_t* left, std::size_t left_stride, const std::uint32_t* right, std::size_t columns, std::size_t terms,
                   float* sums, std::size_t sums_stride) {
  std::size_t column = 0;
  for (; column + kColumnTile * kFloats <= columns; column += kColumnTile * kFloats) {
    multiply_tile<kColumnTile>(left, left_stride, right + column, columns, terms, sums + column, sums_stride);
  }
  for (; column < columns; column += kFloats) {
    multiply_tile<1>(left, left_stride, right + column, columns, terms, sums + column, sums_stride);
  }
}

std::size_t first_visible(std::size_t position, std::size_t window) { return position < window ? 0 : position + 1 - window; }

void attend(const AttentionHead& head, std::size_t length, const AttentionLayout& layout, float* scratch) {
  const std::size_t pairs = pairs_of(head.size);
  auto* const keys = reinterpret_cast<std::uint32_t*>(scratch + layout.keys);
  auto* const values = reinterpret_cast<std::uint32_t*>(scratch + layout.values);
  auto* const queries = reinterpret_cast<std::uint32_t*>(scratch + layout.queries);
  float* const scores = scratch + layout.scores;
  float* const sums = scratch + layout.sums;
  for (std::size_t begin = 0; begin < length; begin += kKeyPanel) {
    lay_out_keys(head, begin, lesser(kKeyPanel, length - begin), keys + begin * pairs);
  }
  lay_out_values(head, length, layout.padded_size, values);
  const __m512 scale = _mm512_set1_ps(1.0F / __builtin_sqrtf(static_cast<float>(head.size)));
  for (std::size_t begin = 0; begin < length; begin += kQueryTile) {
    const std::size_t rows = lesser(kQueryTile, length - begin);
    const std::size_t padded_rows = (rows + kRowTile - 1) / kRowTile * kRowTile;
    // Keys after the last query of the tile are never attended to, nor are those before the window of its first.
    const std::size_t seen = begin + rows;
    const std::size_t first_seen = first_visible(begin, head.window) / kKeyPanel * kKeyPanel;
    for (std::size_t row = 0; row < padded_rows; ++row) {
      const float* const query = head.queries + (begin + lesser(row, rows - 1)) * head.query_stride;
      for (std::size_t pair = 0; pair < pairs; pair += kPairs) {
        _mm512_mask_storeu_epi32(queries + row * pairs + pair, first_lanes(pairs - pair),
                                 narrow_values(query + 2 * pair, head.size - 2 * pair, scale));
      }
    }
    for (std::size_t row = 0; row < padded_rows; row += kRowTile) {
      for (std::size_t key = first_seen; key < lesser(seen, begin + row + kRowTile); key += kKeyPanel) {
        multiply_rows(queries + row * pairs, pairs, keys + key * pairs, kKeyPanel, pairs, scores + row * layout.padded_length + key,
                      layout.padded_length);
      }
    }
    for (std::size_t row = 0; row < padded_rows; row += kRowTile) {
      // No key after the last query of the row tile weighs anything.
      const std::size_t keys_of_rows = lesser(begin + row + kRowTile, seen);
      for (std::size_t each = row; each < row + kRowTile; ++each) {
        float* const row_scores = scores + each * layout.padded_length;
        // Of rows beyond the last query, nothing.
        const std::size_t first = each < rows ? first_visible(begin + each, head.window) : first_seen;
        const std::size_t last = each < rows ? begin + each + 1 : first_seen;
        if (first < last) vector_math(InstructionSet::kAvx512).softmax(row_scores + first, last - first);
        __builtin_memset(row_scores + first_seen, 0, (first - first_seen) * sizeof(float));
        // To where the vectors end that are narrowed, each into what was read before.
        __builtin_memset(row_scores + last, 0, (layout.padded_length - last) * sizeof(float));
        auto* const weights = reinterpret_cast<std::uint16_t*>(row_scores);
        for (std::size_t key = first_seen; key < keys_of_rows; key += 2 * kFloats) {
          _mm512_storeu_si512(weights + key, narrow_values(row_scores + key, 2 * kFloats, _mm512_set1_ps(1.0F)));
        }
      }
      multiply_rows(reinterpret_cast<const std::uint32_t*>(scores + row * layout.padded_length) + first_seen / 2, layout.padded_length,
                    values + first_seen / 2 * layout.padded_size, layout.padded_size, pairs_of(keys_of_rows - first_seen),
                    sums + row * layout.padded_size, layout.padded_size);
    }
    for (std::size_t row = 0; row < rows; ++row) {
      __builtin_memcpy(head.result + (begin + row) * head.result_stride, sums + row * layout.padded_size, head.size * sizeof(float));
    }
  }
}

}  // namespace

extern const PairMath kPairMath;
const PairMath kPairMath = {.narrow = narrow, .add_sparse_products = add_sparse_products, .attend = attend};

}  // namespace secateur::cpu::avx512
