#include "reference_block.h"

#include <cmath>
#include <numbers>
#include <random>
#include <span>

namespace secateur::test {

Values project(const Values& x, std::size_t tokens, const std::vector<float>& weight, std::size_t rows, const std::vector<float>* bias) {
  const std::size_t columns = weight.size() / rows;
  Values result(tokens * rows);
  for (std::size_t token = 0; token < tokens; ++token) {
    for (std::size_t row = 0; row < rows; ++row) {
      double sum = bias == nullptr ? 0.0 : (*bias)[row];
      for (std::size_t column = 0; column < columns; ++column) sum += x[token * columns + column] * weight[row * columns + column];
      result[token * rows + row] = sum;
    }
  }
  return result;
}

namespace {

// Turns of a pair from one position to the next, in radians; scaled as transformers' modeling_rope_utils.py does.
double frequency_of(const Architecture& a, std::size_t pair) {
  const double frequency = 1 / std::pow(a.rotary_base, 2.0 * static_cast<double>(pair) / static_cast<double>(a.head_dimension));
  if (a.rotary_scaling == RotaryScaling::kNone) return frequency;
  const double scaled = frequency / a.rotary_factor;
  if (a.rotary_scaling == RotaryScaling::kLinear) return scaled;
  const double wave_length = 2 * std::numbers::pi / frequency;
  if (wave_length < a.original_positions / a.high_frequency_factor) return frequency;
  if (wave_length > a.original_positions / a.low_frequency_factor) return scaled;
  const double smooth = (a.original_positions / wave_length - a.low_frequency_factor) / (a.high_frequency_factor - a.low_frequency_factor);
  return (1 - smooth) * scaled + smooth * frequency;
}

// Each head by itself, as RMS normalisation does.
void normalize_heads(const Architecture& a, Values& x, const std::vector<float>* weight) {
  if (weight == nullptr) return;
  const std::size_t size = a.head_dimension;
  for (std::size_t begin = 0; begin < x.size(); begin += size) {
    double squares = 0;
    for (std::size_t i = 0; i < size; ++i) squares += x[begin + i] * x[begin + i];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(size) + a.normalization_epsilon);
    for (std::size_t i = 0; i < size; ++i) x[begin + i] *= scale * (*weight)[i];
  }
}

void rotate(const Architecture& a, Values& x, std::size_t tokens, std::size_t heads) {
  const std::size_t size = a.head_dimension;
  for (std::size_t token = 0; token < tokens; ++token) {
    for (std::size_t head = 0; head < heads; ++head) {
      double* values = x.data() + (token * heads + head) * size;
      for (std::size_t i = 0; i < size / 2; ++i) {
        const double angle = static_cast<double>(token) * frequency_of(a, i);
        const double first = values[i];
        const double second = values[i + size / 2];
        values[i] = first * std::cos(angle) - second * std::sin(angle);
        values[i + size / 2] = second * std::cos(angle) + first * std::sin(angle);
      }
    }
  }
}

Values attend(const Architecture& a, const Values& q, const Values& k, const Values& v, std::size_t tokens, std::size_t window) {
  const std::size_t size = a.head_dimension;
  Values result(tokens * a.query_width(), 0.0);
  for (std::size_t head = 0; head < a.attention_heads; ++head) {
    const std::size_t key_head = head / (a.attention_heads / a.key_value_heads);
    for (std::size_t query = 0; query < tokens; ++query) {
      Values weights(query + 1);
      double sum = 0;
      const std::size_t first = window == 0 || query < window ? 0 : query + 1 - window;
      for (std::size_t key = first; key <= query; ++key) {
        double product = 0;
        for (std::size_t i = 0; i < size; ++i)
          product += q[query * a.query_width() + head * size + i] * k[key * a.key_width() + key_head * size + i];
        weights[key] = std::exp(product / std::sqrt(static_cast<double>(size)));
        sum += weights[key];
      }
      for (std::size_t key = first; key <= query; ++key) {
        for (std::size_t i = 0; i < size; ++i) {
          result[query * a.query_width() + head * size + i] += weights[key] / sum * v[key * a.key_width() + key_head * size + i];
        }
      }
    }
  }
  return result;
}

}  // namespace

std::vector<std::size_t> shape_of(TensorRole role, const Architecture& a) {
  switch (role) {
    case TensorRole::kTokenEmbedding:
    case TensorRole::kHeadWeight:
      return {a.vocabulary_size, a.token_width()};
    case TensorRole::kEmbeddingProjectionWeight:
      return {a.hidden_size, a.embedding_size};
    case TensorRole::kHeadProjectionWeight:
      return {a.embedding_size, a.hidden_size};
    case TensorRole::kQueryNormWeight:
    case TensorRole::kKeyNormWeight:
      return {a.head_dimension};
    case TensorRole::kPositionEmbedding:
      return {a.maximum_positions + a.learned_position_offset, a.hidden_size};
    case TensorRole::kQueryWeight:
      return {a.query_width(), a.hidden_size};
    case TensorRole::kQueryBias:
      return {a.query_width()};
    case TensorRole::kKeyWeight:
    case TensorRole::kValueWeight:
      return {a.key_width(), a.hidden_size};
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
      return {a.key_width()};
    case TensorRole::kOutputWeight:
      return {a.hidden_size, a.query_width()};
    case TensorRole::kGateWeight:
    case TensorRole::kUpWeight:
      return {a.intermediate_size, a.hidden_size};
    case TensorRole::kGateBias:
    case TensorRole::kUpBias:
      return {a.intermediate_size};
    case TensorRole::kDownWeight:
      return {a.hidden_size, a.intermediate_size};
    default:
      return {a.hidden_size};
  }
}

std::map<TensorRole, std::vector<float>> random_block(const Architecture& architecture, bool biases, unsigned seed, bool head_norms) {
  std::vector<TensorRole> roles = {
      TensorRole::kAttentionNormWeight, TensorRole::kQueryWeight,           TensorRole::kKeyWeight, TensorRole::kValueWeight,
      TensorRole::kOutputWeight,        TensorRole::kFeedForwardNormWeight, TensorRole::kUpWeight,  TensorRole::kDownWeight};
  if (architecture.feed_forward == FeedForward::kGatedSilu) roles.push_back(TensorRole::kGateWeight);
  if (architecture.normalization == Normalization::kLayer) {
    roles.insert(roles.end(), {TensorRole::kAttentionNormBias, TensorRole::kFeedForwardNormBias});
  }
  if (biases) {
    roles.insert(roles.end(),
                 {TensorRole::kQueryBias, TensorRole::kKeyBias, TensorRole::kValueBias, TensorRole::kOutputBias, TensorRole::kDownBias});
    roles.push_back(TensorRole::kUpBias);
    if (architecture.feed_forward == FeedForward::kGatedSilu) roles.push_back(TensorRole::kGateBias);
  }
  if (head_norms) roles.insert(roles.end(), {TensorRole::kQueryNormWeight, TensorRole::kKeyNormWeight});
  std::mt19937 generator(seed);
  std::map<TensorRole, std::vector<float>> tensors;
  for (const TensorRole role : roles) {
    const std::vector<std::size_t> shape = shape_of(role, architecture);
    std::size_t elements = 1;
    for (const std::size_t size : shape) elements *= size;
    // Keeps activations near 1, as trained models do.
    std::normal_distribution<double> normal(0.0, 1.0 / std::sqrt(static_cast<double>(shape.back())));
    std::vector<float> values(elements);
    for (float& value : values) value = static_cast<float>(shape.size() == 1 ? 0.5 + normal(generator) : normal(generator));
    tensors.emplace(role, std::move(values));
  }
  return tensors;
}

TensorView view_of(TensorRole role, const Architecture& architecture, const std::vector<float>& values) {
  const std::span<const std::uint8_t> bytes = {reinterpret_cast<const std::uint8_t*>(values.data()), values.size() * sizeof(float)};
  return {role, ElementType::kF32, shape_of(role, architecture), bytes};
}

std::vector<TensorView> views_of(const std::map<TensorRole, std::vector<float>>& tensors, const Architecture& architecture) {
  std::vector<TensorView> views;
  for (const auto& [role, values] : tensors) views.push_back(view_of(role, architecture, values));
  return views;
}

Values normalize_reference(const Architecture& architecture, const Values& x, std::size_t tokens, const std::vector<float>& weight,
                           const std::vector<float>* bias) {
  const std::size_t size = architecture.hidden_size;
  Values result(x.size());
  for (std::size_t token = 0; token < tokens; ++token) {
    const double* values = x.data() + token * size;
    double mean = 0;
    if (architecture.normalization == Normalization::kLayer) {
      for (std::size_t i = 0; i < size; ++i) mean += values[i] / static_cast<double>(size);
    }
    double squares = 0;
    for (std::size_t i = 0; i < size; ++i) squares += (values[i] - mean) * (values[i] - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(size) + architecture.normalization_epsilon);
    for (std::size_t i = 0; i < size; ++i) {
      result[token * size + i] = (values[i] - mean) * scale * weight[i] + (bias == nullptr ? 0.0 : (*bias)[i]);
    }
  }
  return result;
}

ReferenceResult run_reference_block(const Architecture& a, const std::map<TensorRole, std::vector<float>>& tensors, const Values& hidden,
                                    std::size_t tokens, std::size_t window) {
  const auto find = [&](TensorRole role) {
    const auto found = tensors.find(role);
    return found == tensors.end() ? nullptr : &found->second;
  };
  ReferenceResult result;
  const auto normalize_for = [&](TensorRole weight, TensorRole bias, const Values& x) {
    return normalize_reference(a, x, tokens, tensors.at(weight), find(bias));
  };
  const auto for_attention = [&](const Values& x) {
    return normalize_for(TensorRole::kAttentionNormWeight, TensorRole::kAttentionNormBias, x);
  };
  const auto for_feed_forward = [&](const Values& x) {
    return normalize_for(TensorRole::kFeedForwardNormWeight, TensorRole::kFeedForwardNormBias, x);
  };
  const Values normed = a.post_normalization ? hidden : for_attention(hidden);
  Values q = project(normed, tokens, tensors.at(TensorRole::kQueryWeight), a.query_width(), find(TensorRole::kQueryBias));
  Values k = project(normed, tokens, tensors.at(TensorRole::kKeyWeight), a.key_width(), find(TensorRole::kKeyBias));
  const Values v = project(normed, tokens, tensors.at(TensorRole::kValueWeight), a.key_width(), find(TensorRole::kValueBias));
  normalize_heads(a, q, find(TensorRole::kQueryNormWeight));
  normalize_heads(a, k, find(TensorRole::kKeyNormWeight));
  if (a.position_encoding == PositionEncoding::kRotary) {
    rotate(a, q, tokens, a.attention_heads);
    rotate(a, k, tokens, a.key_value_heads);
  }
  const Values attended = attend(a, q, k, v, tokens, window);
  Values residual = project(attended, tokens, tensors.at(TensorRole::kOutputWeight), a.hidden_size, find(TensorRole::kOutputBias));
  for (std::size_t i = 0; i < residual.size(); ++i) residual[i] += hidden[i];
  const Values raised_input = a.post_normalization ? for_attention(residual) : for_feed_forward(residual);
  if (a.post_normalization) residual = raised_input;
  Values activated = project(raised_input, tokens, tensors.at(TensorRole::kUpWeight), a.intermediate_size, find(TensorRole::kUpBias));
  if (a.feed_forward == FeedForward::kGatedSilu) {
    const Values gate =
        project(raised_input, tokens, tensors.at(TensorRole::kGateWeight), a.intermediate_size, find(TensorRole::kGateBias));
    for (std::size_t i = 0; i < activated.size(); ++i) activated[i] *= gate[i] / (1 + std::exp(-gate[i]));
  } else {
    for (double& value : activated) value = std::max(value, 0.0);
  }
  result.output = project(activated, tokens, tensors.at(TensorRole::kDownWeight), a.hidden_size, find(TensorRole::kDownBias));
  for (std::size_t i = 0; i < result.output.size(); ++i) result.output[i] += residual[i];
  if (a.post_normalization) result.output = for_feed_forward(result.output);
  result.sites = {normed, attended, raised_input, activated};
  return result;
}

}  // namespace secateur::test
