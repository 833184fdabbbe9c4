#include "cpu/vector_math.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "cpu/exponential.h"
#include "cpu/vectorized.h"

namespace secateur::cpu {

SECATEUR_VECTORIZED void rms_norm(const float* x, const float* weight, std::size_t size, double epsilon, float* result) {
  double squares = 0;
#pragma omp simd reduction(+ : squares)
  for (std::size_t i = 0; i < size; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const float scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(size) + epsilon));
  for (std::size_t i = 0; i < size; ++i) result[i] = x[i] * scale * weight[i];
}

SECATEUR_VECTORIZED void layer_norm(const float* x, const float* weight, const float* bias, std::size_t size, double epsilon,
                                    float* result) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::size_t i = 0; i < size; ++i) sum += static_cast<double>(x[i]);
  const double mean = sum / static_cast<double>(size);
  double squares = 0;
#pragma omp simd reduction(+ : squares)
  for (std::size_t i = 0; i < size; ++i) {
    const double difference = static_cast<double>(x[i]) - mean;
    squares += difference * difference;
  }
  const float shift = static_cast<float>(mean);
  const float scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(size) + epsilon));
  for (std::size_t i = 0; i < size; ++i) result[i] = (x[i] - shift) * scale * weight[i] + bias[i];
}

SECATEUR_VECTORIZED void add(float* x, const float* y, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) x[i] += y[i];
}

SECATEUR_VECTORIZED void relu(float* x, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) x[i] = x[i] < 0.0F ? 0.0F : x[i];
}

SECATEUR_VECTORIZED void silu_multiply(float* gate, const float* up, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) gate[i] = gate[i] / (1.0F + fast_exponential(-gate[i])) * up[i];
}

SECATEUR_VECTORIZED void rotate(float* head, const float* cosines, const float* sines, std::size_t size) {
  const std::size_t half = size / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const float first = head[i];
    const float second = head[i + half];
    head[i] = first * cosines[i] - second * sines[i];
    head[i + half] = second * cosines[i] + first * sines[i];
  }
}

SECATEUR_VECTORIZED void softmax(float* x, std::size_t size) {
  float maximum = x[0];
#pragma omp simd reduction(max : maximum)
  for (std::size_t i = 0; i < size; ++i) maximum = x[i] > maximum ? x[i] : maximum;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::size_t i = 0; i < size; ++i) {
    x[i] = fast_exponential(x[i] - maximum);
    sum += x[i];
  }
  const float scale = 1.0F / sum;
  for (std::size_t i = 0; i < size; ++i) x[i] *= scale;
}

SECATEUR_VECTORIZED double log_sum_exp(const float* x, std::size_t size) {
  float maximum = x[0];
#pragma omp simd reduction(max : maximum)
  for (std::size_t i = 0; i < size; ++i) maximum = x[i] > maximum ? x[i] : maximum;
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::size_t i = 0; i < size; ++i) sum += static_cast<double>(fast_exponential(x[i] - maximum));
  return static_cast<double>(maximum) + std::log(sum);
}

SECATEUR_VECTORIZED void add_squares(const float* x, std::size_t size, double* sums) {
  for (std::size_t i = 0; i < size; ++i) sums[i] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
}

SECATEUR_VECTORIZED bool all_finite(const float* x, std::size_t size) {
  constexpr std::uint32_t kExponent = 0x7f800000U;
  std::uint32_t found = 0;
#pragma omp simd reduction(| : found)
  for (std::size_t i = 0; i < size; ++i) found |= (std::bit_cast<std::uint32_t>(x[i]) & kExponent) == kExponent ? 1U : 0U;
  return found == 0;
}

float exponential(float x) { return fast_exponential(x); }

}  // namespace secateur::cpu
