// Element-wise and row-wise operations, compiled once per instruction set. Sums follow a fixed order on a given instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/attention.h"
#include "cpu/instruction_set.h"

namespace secateur::cpu {

// Tokens whose sums add_sparse_products keeps in registers.
inline constexpr std::size_t kTokenPanel = 128;
// Rows and columns of the tiles of add_outer_products.
inline constexpr std::size_t kGramTile = 64;
// Shifts that count_below looks at together.
inline constexpr std::size_t kShifts = 16;

// What a symmetric matrix A becomes, A - v·wᵀ - w·vᵀ, and what it is then multiplied by, x; each has as many values as A has rows.
struct RankTwoUpdate {
  const double* v = nullptr;
  const double* w = nullptr;
  const double* x = nullptr;
};

// Values are float32 unless a name says otherwise; bfloat16 and float16 values are their bits.
struct VectorMath {
  // result[i] = x[i] / rms(x) · weight[i], rms with epsilon inside the root. The result may take the place of x.
  void (*rms_norm)(const float* x, const float* weight, std::size_t size, double epsilon, float* result);
  // result[i] = (x[i] - mean) / deviation · weight[i] + bias[i]. The result may take the place of x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, std::size_t size, double epsilon, float* result);

  // x[i] += y[i].
  void (*add)(float* x, const float* y, std::size_t size);
  // x[i] = max(x[i], 0).
  void (*relu)(float* x, std::size_t size);
  // gate[i] = gate[i] · sigmoid(gate[i]) · up[i].
  void (*silu_multiply)(float* gate, const float* up, std::size_t size);

  // Rotates the pairs (i, i + size/2) of one head by the angles of a position; `cosines`, `sines`: [size / 2].
  void (*rotate)(float* head, const float* cosines, const float* sines, std::size_t size);

  // x[0, size) becomes its softmax.
  void (*softmax)(float* x, std::size_t size);
  // log(Σ exp(x[i])).
  double (*log_sum_exp)(const float* x, std::size_t size);

  // attention.h says what it does.
  void (*attend)(const AttentionHead& head, std::size_t sequence_length, const AttentionLayout& layout, float* scratch);

  // sums[i] += x[i]² in float64.
  void (*add_squares)(const float* x, std::size_t size, double* sums);

  // sums[k, i] += Σ signs[k, t] · x[t, i], token by token; x: [tokens, size], signs: [sketches, tokens] of 1 and -1.
  void (*add_signed)(const float* x, std::size_t tokens, std::size_t size, const float* signs, std::size_t sketches, float* sums);

  // False when a value is NaN or infinite.
  bool (*all_finite)(const float* x, std::size_t size);
  // How many values are 0 of either sign.
  std::size_t (*count_zeros)(const float* x, std::size_t size);

  // x[i] = 0 where bit i of the mask is 1, the least significant bit of a byte being the first.
  void (*drop)(const std::uint8_t* mask, std::size_t size, float* x);
  // The values of x that are not 0, in their order, and their positions; returns how many. x has at most 256 values; as many may be written
  // to either result, whatever comes behind those that count.
  std::size_t (*gather_kept)(const float* x, std::size_t size, float* values, std::uint8_t* positions);

  // Exact.
  void (*widen_bf16)(const std::uint16_t* source, std::size_t size, float* result);
  void (*widen_f16)(const std::uint16_t* source, std::size_t size, float* result);
  // To the nearest, ties to even; NaN stays NaN.
  void (*narrow_bf16)(const float* source, std::size_t size, std::uint16_t* result);

  // result[column, row] = source[row, column]; rows of either are `..._stride` elements apart.
  void (*transpose)(const float* source, std::size_t rows, std::size_t columns, std::size_t source_stride, float* result,
                    std::size_t result_stride);

  // sums[row, :] += Σ values[j] · inputs[columns[j], :] over j from starts[row] to starts[row + 1], in that order. `inputs` and `sums` have
  // rows of kTokenPanel tokens, aligned to 64 bytes.
  void (*add_sparse_products)(const std::uint32_t* starts, const std::uint8_t* columns, const float* values, std::size_t rows,
                              const float* inputs, float* sums);

  // Σ |weights[i]| · scales[i]: products in float32, sum in float64.
  double (*sum_scores)(const float* weights, const float* scales, std::size_t size);
  // How many of those products are above the threshold.
  std::size_t (*count_scores_above)(const float* weights, const float* scales, std::size_t size, float threshold);

  // sums[i, j] += Σ left[term, i] · right[term, j] over the terms in their order; all have rows of kGramTile values, `sums` as many rows.
  void (*add_outer_products)(const double* left, const double* right, std::size_t terms, double* sums);
  // The first `size` values of a row of A become those of the updated A; v, w and x are the row's own of the update's. Returns
  // Σ row[i] · update.x[i] and adds row[i] · x to products[i].
  double (*update_row)(double* row, std::size_t size, const RankTwoUpdate& update, double v, double w, double x, double* products);
  // counts[lane] = the number of eigenvalues below shifts[lane] of a symmetric tridiagonal matrix; squares[i]: of the element between
  // rows i - 1 and i. Pivots closer to 0 than `least_pivot` are taken as its negative. Both have kShifts lanes.
  void (*count_below)(const double* diagonal, const double* squares, std::size_t size, double least_pivot, const double* shifts,
                      double* counts);

  // e^x from -87.3 to 88.37 with a relative error below 2.4e-7; 0 below, e^88.37 above.
  float (*exponential)(float x);
};

// Throws InvalidArgument as selected_instruction_set does.
const VectorMath& vector_math();
// For tests: of one that this processor has.
const VectorMath& vector_math(InstructionSet instruction_set);

}  // namespace secateur::cpu
