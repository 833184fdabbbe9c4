// The loops behind vector_math.h, for one instruction set. Reached once by a source file compiled for it, which defines
// SECATEUR_VECTOR_NAMESPACE and SECATEUR_VECTOR_BYTES. Nothing here may be an inline function of others: the linker could keep a copy that
// other processors cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/vector_math.h"

namespace secateur::cpu::SECATEUR_VECTOR_NAMESPACE {
namespace {

using Vector __attribute__((vector_size(SECATEUR_VECTOR_BYTES), may_alias)) = float;

// e^x = 2^n · e^r with |r| ≤ ln 2 / 2; e^r by a polynomial of degree 6, without a branch. Arguments above 88.37 give e^88.37, below -87.3
// give 0; NaN stays NaN.
inline float exponential_of(float x) {
  constexpr float kMaximum = 88.3762626647949F;
  constexpr float kMinimum = -87.3F;
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kRoundingShift = 12582912.0F;  // 1.5 · 2^23: adding it rounds to a whole number.
  const float clamped = x > kMaximum ? kMaximum : (x < kMinimum ? kMinimum : x);
  const float shifted = clamped * kLog2E + kRoundingShift;
  const float n = shifted - kRoundingShift;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const std::int32_t exponent = __builtin_bit_cast(std::int32_t, shifted) - __builtin_bit_cast(std::int32_t, kRoundingShift);
  const float scale = __builtin_bit_cast(float, (exponent + 127) << 23);
  return x < kMinimum ? 0.0F : p * scale;
}

// Additions under way at a time: each waits several cycles for the one before it in its chain.
constexpr std::size_t kChains = 4;
constexpr std::size_t kDoubles = SECATEUR_VECTOR_BYTES / sizeof(double);
using Doubles __attribute__((vector_size(SECATEUR_VECTOR_BYTES))) = double;
using Floats __attribute__((vector_size(SECATEUR_VECTOR_BYTES / 2), aligned(sizeof(float)), may_alias)) = float;

double total_of(const Doubles* chains) {
  const Doubles sums = (chains[0] + chains[1]) + (chains[2] + chains[3]);
  double total = 0;
  for (std::size_t i = 0; i < kDoubles; ++i) total += sums[i];
  return total;
}

// Sums in float64 of a row's differences from `shift` and of their squares.
struct Moments {
  double sum;
  double squares;
};

template <bool kWithSum>
Moments moments_of(const float* x, std::size_t size, double shift) {
  Doubles sums[kChains] = {};
  Doubles squares[kChains] = {};
  std::size_t begin = 0;
  for (; begin + kChains * kDoubles <= size; begin += kChains * kDoubles) {
#pragma GCC unroll 4
    for (std::size_t chain = 0; chain < kChains; ++chain) {
      const Doubles values = __builtin_convertvector(*reinterpret_cast<const Floats*>(x + begin + chain * kDoubles), Doubles) - shift;
      if constexpr (kWithSum) sums[chain] += values;
      squares[chain] += values * values;
    }
  }
  Moments moments = {total_of(sums), total_of(squares)};
  for (std::size_t i = begin; i < size; ++i) {
    const double value = static_cast<double>(x[i]) - shift;
    if constexpr (kWithSum) moments.sum += value;
    moments.squares += value * value;
  }
  return moments;
}

void rms_norm(const float* x, const float* weight, std::size_t size, double epsilon, float* result) {
  const double squares = moments_of<false>(x, size, 0).squares;
  const float scale = static_cast<float>(1.0 / __builtin_sqrt(squares / static_cast<double>(size) + epsilon));
#pragma omp simd
  for (std::size_t i = 0; i < size; ++i) result[i] = x[i] * scale * weight[i];
}

// The mean of squares minus the square of the mean loses digits where the mean is far from 0, compared to the deviation. Of differences
// from a value of the row it is at most √size deviations away, so float64 keeps more digits than float32 has for rows of up to 2^16 values.
void layer_norm(const float* x, const float* weight, const float* bias, std::size_t size, double epsilon, float* result) {
  const auto first = static_cast<double>(x[0]);
  const Moments moments = moments_of<true>(x, size, first);
  const double mean = moments.sum / static_cast<double>(size);
  const double variance = moments.squares / static_cast<double>(size) - mean * mean;
  const float shift = static_cast<float>(first + mean);
  const float scale = static_cast<float>(1.0 / __builtin_sqrt((variance < 0 ? 0 : variance) + epsilon));
#pragma omp simd
  for (std::size_t i = 0; i < size; ++i) result[i] = (x[i] - shift) * scale * weight[i] + bias[i];
}

void add(float* x, const float* y, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) x[i] += y[i];
}

void relu(float* x, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) x[i] = x[i] < 0.0F ? 0.0F : x[i];
}

void silu_multiply(float* gate, const float* up, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) gate[i] = gate[i] / (1.0F + exponential_of(-gate[i])) * up[i];
}

void rotate(float* head, const float* cosines, const float* sines, std::size_t size) {
  const std::size_t half = size / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const float first = head[i];
    const float second = head[i + half];
    head[i] = first * cosines[i] - second * sines[i];
    head[i + half] = second * cosines[i] + first * sines[i];
  }
}

float maximum_of(const float* x, std::size_t size) {
  float maximum = x[0];
#pragma omp simd reduction(max : maximum)
  for (std::size_t i = 0; i < size; ++i) maximum = x[i] > maximum ? x[i] : maximum;
  return maximum;
}

// x becomes its softmax but for a common factor; returns the sum that is to divide it.
float exponentiate(float* x, std::size_t size) {
  const float maximum = maximum_of(x, size);
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::size_t i = 0; i < size; ++i) {
    x[i] = exponential_of(x[i] - maximum);
    sum += x[i];
  }
  return sum;
}

void softmax(float* x, std::size_t size) {
  const float scale = 1.0F / exponentiate(x, size);
  for (std::size_t i = 0; i < size; ++i) x[i] *= scale;
}

double log_sum_exp(const float* x, std::size_t size) {
  const float maximum = maximum_of(x, size);
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::size_t i = 0; i < size; ++i) sum += static_cast<double>(exponential_of(x[i] - maximum));
  return static_cast<double>(maximum) + __builtin_log(sum);
}

void add_squares(const float* x, std::size_t size, double* sums) {
  for (std::size_t i = 0; i < size; ++i) sums[i] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
}

// Some tokens at a time, so that the sums are fetched and stored for all of them once. Products with signs are exact: each value has the
// same bits on every instruction set.
void add_signed(const float* x, std::size_t tokens, std::size_t size, const float* signs, std::size_t sketches, float* sums) {
  constexpr std::size_t kTogether = 8;
  constexpr std::size_t kWidth = SECATEUR_VECTOR_BYTES / sizeof(float);
  using Unaligned __attribute__((vector_size(SECATEUR_VECTOR_BYTES), aligned(sizeof(float)), may_alias)) = float;
  std::size_t token = 0;
  for (; token + kTogether <= tokens; token += kTogether) {
    const float* const first = x + token * size;
    std::size_t i = 0;
    for (; i + kWidth <= size; i += kWidth) {
      Vector values[kTogether];
#pragma GCC unroll 8
      for (std::size_t t = 0; t < kTogether; ++t) values[t] = *reinterpret_cast<const Unaligned*>(first + t * size + i);
      for (std::size_t sketch = 0; sketch < sketches; ++sketch) {
        const float* const sign = signs + sketch * tokens + token;
        Unaligned* const target = reinterpret_cast<Unaligned*>(sums + sketch * size + i);
        Vector sum = *target;
#pragma GCC unroll 8
        for (std::size_t t = 0; t < kTogether; ++t) sum += sign[t] * values[t];
        *target = sum;
      }
    }
    for (; i < size; ++i) {
      for (std::size_t sketch = 0; sketch < sketches; ++sketch) {
        for (std::size_t t = 0; t < kTogether; ++t) sums[sketch * size + i] += signs[sketch * tokens + token + t] * first[t * size + i];
      }
    }
  }
  for (; token < tokens; ++token) {
    for (std::size_t sketch = 0; sketch < sketches; ++sketch) {
      const float sign = signs[sketch * tokens + token];
      for (std::size_t i = 0; i < size; ++i) sums[sketch * size + i] += sign * x[token * size + i];
    }
  }
}

bool all_finite(const float* x, std::size_t size) {
  constexpr std::uint32_t kExponent = 0x7f800000U;
  std::uint32_t found = 0;
#pragma omp simd reduction(| : found)
  for (std::size_t i = 0; i < size; ++i) found |= (__builtin_bit_cast(std::uint32_t, x[i]) & kExponent) == kExponent ? 1U : 0U;
  return found == 0;
}

double sum_scores(const float* weights, const float* scales, std::size_t size) {
  Doubles chains[kChains] = {};
  std::size_t begin = 0;
  for (; begin + kChains * kDoubles <= size; begin += kChains * kDoubles) {
#pragma GCC unroll 4
    for (std::size_t chain = 0; chain < kChains; ++chain) {
      const std::size_t i = begin + chain * kDoubles;
      const Floats weight = *reinterpret_cast<const Floats*>(weights + i);
      const Floats score = (weight < 0.0F ? -weight : weight) * *reinterpret_cast<const Floats*>(scales + i);
      chains[chain] += __builtin_convertvector(score, Doubles);
    }
  }
  double total = total_of(chains);
  for (std::size_t i = begin; i < size; ++i) total += static_cast<double>(__builtin_fabsf(weights[i]) * scales[i]);
  return total;
}

std::size_t count_scores_above(const float* weights, const float* scales, std::size_t size, float threshold) {
  std::size_t count = 0;
#pragma omp simd reduction(+ : count)
  for (std::size_t i = 0; i < size; ++i) count += __builtin_fabsf(weights[i]) * scales[i] > threshold ? 1U : 0U;
  return count;
}

std::size_t count_zeros(const float* x, std::size_t size) {
  std::size_t zeros = 0;
#pragma omp simd reduction(+ : zeros)
  for (std::size_t i = 0; i < size; ++i) zeros += x[i] == 0.0F ? 1U : 0U;
  return zeros;
}

// Without a branch, which nobody could predict.
void drop(const std::uint8_t* mask, std::size_t size, float* x) {
  using Words __attribute__((vector_size(8 * sizeof(std::uint32_t)), aligned(sizeof(float)), may_alias)) = std::uint32_t;
  constexpr Words kBits = {1, 2, 4, 8, 16, 32, 64, 128};
  std::size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    Words* const words = reinterpret_cast<Words*>(x + i);
    *words &= reinterpret_cast<Words>((kBits & mask[i / 8]) == 0);
  }
  for (; i < size; ++i) x[i] = (mask[i / 8] >> i % 8 & 1) != 0 ? 0.0F : x[i];
}

// Without a branch: a 0 is written too, and the next value in its place.
std::size_t gather_kept(const float* x, std::size_t size, float* values, std::uint8_t* positions) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < size; ++i) {
    values[kept] = x[i];
    positions[kept] = static_cast<std::uint8_t>(i);
    kept += x[i] != 0.0F ? 1U : 0U;
  }
  return kept;
}

void widen_bf16(const std::uint16_t* source, std::size_t size, float* result) {
  for (std::size_t i = 0; i < size; ++i) result[i] = __builtin_bit_cast(float, static_cast<std::uint32_t>(source[i]) << 16);
}

// Shifts exponent and mantissa into place and lets a multiplication rescale them, which gives subnormals their value too.
void widen_f16(const std::uint16_t* source, std::size_t size, float* result) {
  constexpr float kRescale = 0x1.0p112F;
  constexpr std::uint32_t kInfinityExponent = 0x7f800000U;
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint32_t bits = source[i];
    const std::uint32_t magnitude = (bits & 0x7fffU) << 13;
    const std::uint32_t scaled = __builtin_bit_cast(std::uint32_t, __builtin_bit_cast(float, magnitude) * kRescale);
    const std::uint32_t special = (bits & 0x7c00U) == 0x7c00U ? kInfinityExponent : 0U;
    result[i] = __builtin_bit_cast(float, scaled | special | ((bits & 0x8000U) << 16));
  }
}

void narrow_bf16(const float* source, std::size_t size, std::uint16_t* result) {
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, source[i]);
    const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
    const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
    result[i] = static_cast<std::uint16_t>((is_nan ? bits | 0x400000U : rounded) >> 16);
  }
}

// In squares that fit the registers, so that both sides are read and written by whole cache lines.
void transpose(const float* source, std::size_t rows, std::size_t columns, std::size_t source_stride, float* result,
               std::size_t result_stride) {
  constexpr std::size_t kSquare = 16;
  for (std::size_t row = 0; row < rows; row += kSquare) {
    const std::size_t row_end = row + kSquare < rows ? row + kSquare : rows;
    for (std::size_t column = 0; column < columns; column += kSquare) {
      const std::size_t column_end = column + kSquare < columns ? column + kSquare : columns;
      if (row_end - row == kSquare && column_end - column == kSquare) {
        float square[kSquare][kSquare];
        for (std::size_t i = 0; i < kSquare; ++i) {
          for (std::size_t j = 0; j < kSquare; ++j) square[i][j] = source[(row + i) * source_stride + column + j];
        }
        for (std::size_t j = 0; j < kSquare; ++j) {
          for (std::size_t i = 0; i < kSquare; ++i) result[(column + j) * result_stride + row + i] = square[i][j];
        }
        continue;
      }
      for (std::size_t i = row; i < row_end; ++i) {
        for (std::size_t j = column; j < column_end; ++j) result[j * result_stride + i] = source[i * source_stride + j];
      }
    }
  }
}

void add_sparse_products(const std::uint32_t* starts, const std::uint8_t* columns, const float* values, std::size_t rows,
                         const float* inputs, float* sums) {
  constexpr std::size_t kVectors = 8;
  constexpr std::size_t kTokens = kVectors * SECATEUR_VECTOR_BYTES / sizeof(float);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t token = 0; token < kTokenPanel; token += kTokens) {
      Vector* const target = reinterpret_cast<Vector*>(sums + row * kTokenPanel + token);
      Vector sum[kVectors];
#pragma GCC unroll 8
      for (std::size_t i = 0; i < kVectors; ++i) sum[i] = target[i];
      for (std::uint32_t j = starts[row]; j < starts[row + 1]; ++j) {
        const float value = values[j];
        const Vector* const input = reinterpret_cast<const Vector*>(inputs + columns[j] * kTokenPanel + token);
#pragma GCC unroll 8
        for (std::size_t i = 0; i < kVectors; ++i) sum[i] += value * input[i];
      }
#pragma GCC unroll 8
      for (std::size_t i = 0; i < kVectors; ++i) target[i] = sum[i];
    }
  }
}

float exponential(float x) { return exponential_of(x); }

}  // namespace

}  // namespace secateur::cpu::SECATEUR_VECTOR_NAMESPACE
