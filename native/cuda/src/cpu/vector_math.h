// Element-wise and row-wise float32 operations. Sums follow a fixed order on a given instruction set.
#pragma once

#include <cstddef>

namespace secateur::cpu {

// result[i] = x[i] / rms(x) · weight[i], rms with epsilon inside the root.
void rms_norm(const float* x, const float* weight, std::size_t size, double epsilon, float* result);
// result[i] = (x[i] - mean) / deviation · weight[i] + bias[i].
void layer_norm(const float* x, const float* weight, const float* bias, std::size_t size, double epsilon, float* result);

// x[i] += y[i].
void add(float* x, const float* y, std::size_t size);
// x[i] = max(x[i], 0).
void relu(float* x, std::size_t size);
// gate[i] = gate[i] · sigmoid(gate[i]) · up[i].
void silu_multiply(float* gate, const float* up, std::size_t size);

// Rotates the pairs (i, i + size/2) of one head by the angles of a position; `cosines`, `sines`: [size / 2].
void rotate(float* head, const float* cosines, const float* sines, std::size_t size);

// x[0, size) becomes its softmax.
void softmax(float* x, std::size_t size);
// log(Σ exp(x[i])).
double log_sum_exp(const float* x, std::size_t size);

// sums[i] += x[i]² in float64.
void add_squares(const float* x, std::size_t size, double* sums);

// False when a value is NaN or infinite.
bool all_finite(const float* x, std::size_t size);

// e^x from -87.3 to 88.37 with a relative error below 2.4e-7; 0 below, e^88.37 above.
float exponential(float x);

}  // namespace secateur::cpu
