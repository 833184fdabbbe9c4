#include "cpu/normalization.h"

#include "cpu/vector_math.h"

namespace secateur::cpu {

void normalize(const Architecture& architecture, const float* x, const float* weight, const float* bias, std::size_t tokens,
               float* result) {
  const std::size_t size = architecture.hidden_size;
  for (std::size_t token = 0; token < tokens; ++token) {
    if (architecture.normalization == Normalization::kRms) {
      vector_math().rms_norm(x + token * size, weight, size, architecture.normalization_epsilon, result + token * size);
    } else {
      vector_math().layer_norm(x + token * size, weight, bias, size, architecture.normalization_epsilon, result + token * size);
    }
  }
}

}  // namespace secateur::cpu
