// Causal attention of one head, for one instruction set.
//
// Queries are taken in tiles. Their scores are products of registers full of queries and keys: keys are laid out by dimension first, so
// that a vector holds neighbouring keys; values are laid out by token, so that a vector holds neighbouring dimensions.
#include "cpu/attention.h"
#include "cpu/vector_math_loops.h"

namespace secateur::cpu::SECATEUR_VECTOR_NAMESPACE {
namespace {

constexpr std::size_t kVectorFloats = SECATEUR_VECTOR_BYTES / sizeof(float);
// Vectors of sums held in registers, which leaves some for the operands; fewer would not hide how long an addition takes, and the more rows
// there are of them, the fewer operands are loaded for each.
constexpr std::size_t kRegisterSums = SECATEUR_VECTOR_BYTES == 64 ? 16 : SECATEUR_VECTOR_BYTES == 32 ? 12 : 8;
// Rows are padded to a multiple of this.
constexpr std::size_t kRowTile = SECATEUR_VECTOR_BYTES == 32 ? 6 : 8;
static_assert(kQueryTile % kRowTile == 0, "a tile of queries has no padded rows but the last");

// sums[row, :] = Σ_i left[row · left_stride + i] · right[i · right_stride + :] over `terms` terms, for Rows rows and Columns vectors.
template <std::size_t Rows, std::size_t Columns>
inline void multiply_tile(const float* left, std::size_t left_stride, const float* right, std::size_t right_stride, std::size_t terms,
                          float* sums, std::size_t sums_stride) {
  Vector sum[Rows][Columns] = {};
  for (std::size_t i = 0; i < terms; ++i) {
    Vector operand[Columns];
#pragma GCC unroll 4
    for (std::size_t c = 0; c < Columns; ++c) operand[c] = *reinterpret_cast<const Vector*>(right + i * right_stride + c * kVectorFloats);
#pragma GCC unroll 8
    for (std::size_t r = 0; r < Rows; ++r) {
      const float value = left[r * left_stride + i];
#pragma GCC unroll 4
      for (std::size_t c = 0; c < Columns; ++c) sum[r][c] += value * operand[c];
    }
  }
  for (std::size_t r = 0; r < Rows; ++r) {
    for (std::size_t c = 0; c < Columns; ++c) *reinterpret_cast<Vector*>(sums + r * sums_stride + c * kVectorFloats) = sum[r][c];
  }
}

template <std::size_t Columns>
inline void multiply_rows(const float* left, std::size_t left_stride, const float* right, std::size_t right_stride, std::size_t terms,
                          float* sums, std::size_t sums_stride) {
  constexpr std::size_t kRows = kRegisterSums / Columns < kRowTile ? kRegisterSums / Columns : kRowTile;
  for (std::size_t row = 0; row < kRowTile; row += kRows) {
    multiply_tile<kRows, Columns>(left + row * left_stride, left_stride, right, right_stride, terms, sums + row * sums_stride, sums_stride);
  }
}

// The same for any number of whole vectors and of row tiles.
void multiply_padded(std::size_t rows, std::size_t columns, std::size_t terms, const float* left, std::size_t left_stride,
                     const float* right, std::size_t right_stride, float* sums, std::size_t sums_stride) {
  const std::size_t vectors = columns / kVectorFloats;
  for (std::size_t row = 0; row < rows; row += kRowTile) {
    const float* const row_left = left + row * left_stride;
    float* const row_sums = sums + row * sums_stride;
    std::size_t vector = 0;
    for (; vector + 4 <= vectors; vector += 4) {
      const std::size_t column = vector * kVectorFloats;
      multiply_rows<4>(row_left, left_stride, right + column, right_stride, terms, row_sums + column, sums_stride);
    }
    for (; vector + 2 <= vectors; vector += 2) {
      const std::size_t column = vector * kVectorFloats;
      multiply_rows<2>(row_left, left_stride, right + column, right_stride, terms, row_sums + column, sums_stride);
    }
    for (; vector < vectors; ++vector) {
      const std::size_t column = vector * kVectorFloats;
      multiply_rows<1>(row_left, left_stride, right + column, right_stride, terms, row_sums + column, sums_stride);
    }
  }
}

std::size_t first_visible(std::size_t position, std::size_t window) { return position < window ? 0 : position + 1 - window; }

void attend(const AttentionHead& head, std::size_t length, const AttentionLayout& layout, float* scratch) {
  float* const keys = scratch + layout.keys;
  float* const values = scratch + layout.values;
  float* const queries = scratch + layout.queries;
  float* const scores = scratch + layout.scores;
  float* const sums = scratch + layout.sums;
  for (std::size_t begin = 0; begin < length; begin += kKeyPanel) {
    const std::size_t count = length - begin < kKeyPanel ? length - begin : kKeyPanel;
    float* const panel = keys + begin * head.size;
    transpose(head.keys + begin * head.key_stride, count, head.size, head.key_stride, panel, kKeyPanel);
    for (std::size_t i = 0; i < head.size; ++i) {
      for (std::size_t key = count; key < kKeyPanel; ++key) panel[i * kKeyPanel + key] = 0.0F;
    }
  }
  for (std::size_t token = 0; token < length; ++token) {
    float* const row = values + token * layout.padded_size;
    __builtin_memcpy(row, head.values + token * head.key_stride, head.size * sizeof(float));
    __builtin_memset(row + head.size, 0, (layout.padded_size - head.size) * sizeof(float));
  }
  const float scale = 1.0F / __builtin_sqrtf(static_cast<float>(head.size));
  for (std::size_t begin = 0; begin < length; begin += kQueryTile) {
    const std::size_t rows = length - begin < kQueryTile ? length - begin : kQueryTile;
    const std::size_t padded_rows = (rows + kRowTile - 1) / kRowTile * kRowTile;
    // Keys after the last query of the tile are never attended to, nor are those before the window of its first.
    const std::size_t seen = begin + rows;
    const std::size_t first_seen = first_visible(begin, head.window) / kKeyPanel * kKeyPanel;
    for (std::size_t row = 0; row < rows; ++row) {
      const float* const query = head.queries + (begin + row) * head.query_stride;
#pragma omp simd
      for (std::size_t i = 0; i < head.size; ++i) queries[row * head.size + i] = scale * query[i];
    }
    __builtin_memset(queries + rows * head.size, 0, (padded_rows - rows) * head.size * sizeof(float));
    for (std::size_t key = first_seen; key < seen; key += kKeyPanel) {
      multiply_padded(padded_rows, kKeyPanel, head.size, queries, head.size, keys + key * head.size, kKeyPanel, scores + key,
                      layout.padded_length);
    }
    float weights[kQueryTile];
    for (std::size_t row = 0; row < padded_rows; ++row) {
      float* const row_scores = scores + row * layout.padded_length;
      // Of rows beyond the last query, nothing.
      const std::size_t first = row < rows ? first_visible(begin + row, head.window) : first_seen;
      const std::size_t last = row < rows ? begin + row + 1 : first_seen;
      if (first < last) weights[row] = 1.0F / exponentiate(row_scores + first, last - first);
      __builtin_memset(row_scores + first_seen, 0, (first - first_seen) * sizeof(float));
      __builtin_memset(row_scores + last, 0, (seen - last) * sizeof(float));
    }
    for (std::size_t row = 0; row < padded_rows; row += kRowTile) {
      // No key after the last query of the row tile weighs anything.
      const std::size_t keys_of_rows = begin + row + kRowTile < seen ? begin + row + kRowTile : seen;
      multiply_padded(kRowTile, layout.padded_size, keys_of_rows - first_seen, scores + row * layout.padded_length + first_seen,
                      layout.padded_length, values + first_seen * layout.padded_size, layout.padded_size, sums + row * layout.padded_size,
                      layout.padded_size);
    }
    for (std::size_t row = 0; row < rows; ++row) {
      float* const result = head.result + (begin + row) * head.result_stride;
      const float* const sum = sums + row * layout.padded_size;
#pragma omp simd
      for (std::size_t i = 0; i < head.size; ++i) result[i] = weights[row] * sum[i];
    }
  }
}

}  // namespace
}  // namespace secateur::cpu::SECATEUR_VECTOR_NAMESPACE
