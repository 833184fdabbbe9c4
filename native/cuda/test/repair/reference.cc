#include "reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace secateur::test {

Matrix inverse_of(Matrix matrix, std::size_t size) {
  Matrix inverse(size * size);
  for (std::size_t i = 0; i < size; ++i) inverse[i * size + i] = 1;
  for (std::size_t pivot = 0; pivot < size; ++pivot) {
    const double scale = 1 / matrix[pivot * size + pivot];
    for (std::size_t j = 0; j < size; ++j) {
      matrix[pivot * size + j] *= scale;
      inverse[pivot * size + j] *= scale;
    }
    for (std::size_t i = 0; i < size; ++i) {
      const double factor = matrix[i * size + pivot];
      if (i == pivot || factor == 0) continue;
      for (std::size_t j = 0; j < size; ++j) {
        matrix[i * size + j] -= factor * matrix[pivot * size + j];
        inverse[i * size + j] -= factor * inverse[pivot * size + j];
      }
    }
  }
  return inverse;
}

PrunedMatrix reference_sparsegpt(const Matrix& gram, std::size_t samples, std::size_t rows, std::size_t columns,
                                 const std::vector<float>& weights, const std::vector<std::int32_t>& counts) {
  Matrix hessian = gram;
  PrunedMatrix expected{.weights = Matrix(weights.begin(), weights.end()), .mask = std::vector<std::uint8_t>(rows * ((columns + 7) / 8))};
  double trace = 0;
  for (double& value : hessian) value *= 2.0 / static_cast<double>(samples);
  for (std::size_t column = 0; column < columns; ++column) {
    double& diagonal = hessian[column * columns + column];
    if (diagonal == 0) {
      diagonal = 1;
      for (std::size_t row = 0; row < rows; ++row) expected.weights[row * columns + column] = 0;
    }
    trace += diagonal;
  }
  for (std::size_t column = 0; column < columns; ++column) {
    hessian[column * columns + column] += 0.01 * trace / static_cast<double>(columns);
  }

  Matrix inverse = inverse_of(hessian, columns);
  // The pivots of all columns are needed when a block begins, its rows when a column is dropped.
  std::vector<double> pivots(columns);
  Matrix pivot_rows(columns * columns);
  for (std::size_t column = 0; column < columns; ++column) {
    const double pivot = inverse[column * columns + column];
    pivots[column] = pivot;
    for (std::size_t j = column; j < columns; ++j) pivot_rows[column * columns + j] = inverse[column * columns + j];
    for (std::size_t i = column + 1; i < columns; ++i) {
      const double factor = inverse[i * columns + column] / pivot;
      for (std::size_t j = column + 1; j < columns; ++j) inverse[i * columns + j] -= factor * pivot_rows[column * columns + j];
    }
  }
  for (std::size_t row = 0; row < rows; ++row) {
    double* const own = &expected.weights[row * columns];
    for (std::size_t begin = 0; begin < columns; begin += 128) {
      const std::size_t end = std::min<std::size_t>(begin + 128, columns);
      const auto count = static_cast<std::size_t>(counts[row]);
      std::vector<std::size_t> order(end - begin);
      std::iota(order.begin(), order.end(), begin);
      const auto score = [&](std::size_t column) { return own[column] * own[column] / pivots[column]; };
      std::ranges::stable_sort(order, {}, score);
      order.resize(count * end / columns - count * begin / columns);
      std::ranges::sort(order);
      for (const std::size_t column : order) {
        const double error = own[column] / pivots[column];
        for (std::size_t j = column; j < columns; ++j) own[j] -= error * pivot_rows[column * columns + j];
        std::uint8_t& byte = expected.mask[row * ((columns + 7) / 8) + column / 8];
        byte = static_cast<std::uint8_t>(byte | (1U << (column % 8)));
      }
      for (const std::size_t column : order) own[column] = 0;
    }
  }
  return expected;
}

Matrix gram_of(const std::vector<float>& inputs, std::size_t columns) {
  Matrix gram(columns * columns);
  for (std::size_t i = 0; i < columns; ++i) {
    for (std::size_t j = 0; j < columns; ++j) {
      for (std::size_t token = 0; token < inputs.size() / columns; ++token) {
        gram[i * columns + j] += static_cast<double>(inputs[token * columns + i]) * static_cast<double>(inputs[token * columns + j]);
      }
    }
  }
  return gram;
}

double output_error(const Matrix& gram, const std::vector<double>& difference) {
  const std::size_t columns = difference.size();
  double error = 0;
  for (std::size_t i = 0; i < columns; ++i) {
    for (std::size_t j = 0; j < columns; ++j) error += difference[i] * gram[i * columns + j] * difference[j];
  }
  return error;
}

}  // namespace secateur::test
