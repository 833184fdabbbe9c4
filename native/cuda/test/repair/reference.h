// Repair in float64, plain and slow; the engine and the CUDA kernels are compared with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace secateur::test {

using Matrix = std::vector<double>;

struct PrunedMatrix {
  Matrix weights;
  std::vector<std::uint8_t> mask;
};

// Gauss-Jordan elimination, of a positive definite matrix.
Matrix inverse_of(Matrix matrix, std::size_t size);

// Σ xxᵀ over the rows of inputs [tokens, columns].
Matrix gram_of(const std::vector<float>& inputs, std::size_t columns);

// d C dᵀ
double output_error(const Matrix& gram, const std::vector<double>& difference);

// Column by column as in the paper: after a column, the inverse Hessian of those to its right comes from eliminating it.
PrunedMatrix reference_sparsegpt(const Matrix& gram, std::size_t samples, std::size_t rows, std::size_t columns,
                                 const std::vector<float>& weights, const std::vector<std::int32_t>& counts);

}  // namespace secateur::test
