// A transformer block in float64, written for being read: what the engine is held to.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "secateur/backend.h"

namespace secateur::test {

using Values = std::vector<double>;

// Random float32 tensors of every role that a block of the architecture has; biases and normalisations of heads only on request.
std::map<TensorRole, std::vector<float>> random_block(const Architecture& architecture, bool biases, unsigned seed,
                                                      bool head_norms = false);
// Shape of a role's tensor.
std::vector<std::size_t> shape_of(TensorRole role, const Architecture& architecture);
// Of tensors of those shapes, which outlive the views.
TensorView view_of(TensorRole role, const Architecture& architecture, const std::vector<float>& values);
std::vector<TensorView> views_of(const std::map<TensorRole, std::vector<float>>& tensors, const Architecture& architecture);

struct ReferenceResult {
  // [tokens, hidden]
  Values output;
  // The inputs of the four sites, [tokens, width].
  std::vector<Values> sites;
};

// One sample: hidden [tokens, hidden]. Window: as of BackendSession::load_shard.
ReferenceResult run_reference_block(const Architecture& architecture, const std::map<TensorRole, std::vector<float>>& tensors,
                                    const Values& hidden, std::size_t tokens, std::size_t window = 0);

// x [tokens, columns] · weightᵀ + bias
Values project(const Values& x, std::size_t tokens, const std::vector<float>& weight, std::size_t rows, const std::vector<float>* bias);

Values normalize_reference(const Architecture& architecture, const Values& x, std::size_t tokens, const std::vector<float>& weight,
                           const std::vector<float>* bias);

}  // namespace secateur::test
