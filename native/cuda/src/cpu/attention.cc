#include "cpu/attention.h"

#include <algorithm>
#include <cmath>

#include "cpu/gemm.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

std::size_t attention_scratch(std::size_t sequence_length) { return std::min(kQueryTile, sequence_length) * sequence_length; }

void attend(const AttentionHead& head, std::size_t sequence_length, float* scratch) {
  const float scale = 1.0F / std::sqrt(static_cast<float>(head.size));
  for (std::size_t begin = 0; begin < sequence_length; begin += kQueryTile) {
    const std::size_t queries = std::min(kQueryTile, sequence_length - begin);
    // Keys after the last query of the tile are never attended to.
    const std::size_t keys = begin + queries;
    multiply_transposed(queries, keys, head.size, scale, head.queries + begin * head.query_stride, head.query_stride, head.keys,
                        head.key_stride, scratch, keys);
    for (std::size_t row = 0; row < queries; ++row) {
      float* scores = scratch + row * keys;
      const std::size_t visible = begin + row + 1;
      vector_math().softmax(scores, visible);
      std::fill(scores + visible, scores + keys, 0.0F);
    }
    multiply(queries, head.size, keys, scratch, keys, head.values, head.key_stride, head.result + begin * head.result_stride,
             head.result_stride);
  }
}

double attention_flops(std::size_t sequence_length, std::size_t size) {
  double products = 0;
  for (std::size_t begin = 0; begin < sequence_length; begin += kQueryTile) {
    const std::size_t queries = std::min(kQueryTile, sequence_length - begin);
    products += static_cast<double>(queries) * static_cast<double>(begin + queries);
  }
  return 4.0 * products * static_cast<double>(size);
}

}  // namespace secateur::cpu
