// A job's phases on one block of Qwen2.5-7B's shape and random weights, by the backend that SECATEUR_CUDA_LIBRARY names: collect
// statistics, allocate the sparsity of every projection, apply the masks, propagate. Prints a JSON line for each phase of each step, as the
// device timed it. usage: bench_block [--tiny] [--bf16]
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/backend_loader.h"
#include "secateur/backend.h"

namespace secateur::bench {
namespace {

constexpr std::uint64_t kUnlimited = std::uint64_t{1} << 40;

struct Size {
  std::size_t hidden;
  std::size_t intermediate;
  std::size_t heads;
  std::size_t key_heads;
  std::size_t tokens;
  std::size_t samples;
};
constexpr Size kQwen7B = {3584, 18944, 28, 4, 2048, 8};
constexpr Size kTiny = {64, 96, 4, 2, 16, 4};
constexpr std::size_t kWords = 1024;

Architecture architecture_of(const Size& size) {
  return {size.hidden,
          size.intermediate,
          size.heads,
          size.key_heads,
          size.hidden / size.heads,
          kWords,
          size.tokens,
          Normalization::kRms,
          1e-6,
          PositionEncoding::kRotary,
          1e6,
          0,
          FeedForward::kGatedSilu};
}

std::vector<std::pair<TensorRole, std::vector<std::size_t>>> projections(const Architecture& a) {
  return {{TensorRole::kQueryWeight, {a.query_width(), a.hidden_size}},    {TensorRole::kKeyWeight, {a.key_width(), a.hidden_size}},
          {TensorRole::kValueWeight, {a.key_width(), a.hidden_size}},      {TensorRole::kOutputWeight, {a.hidden_size, a.query_width()}},
          {TensorRole::kGateWeight, {a.intermediate_size, a.hidden_size}}, {TensorRole::kUpWeight, {a.intermediate_size, a.hidden_size}},
          {TensorRole::kDownWeight, {a.hidden_size, a.intermediate_size}}};
}

// bfloat16, as checkpoints have it: uniform values of the deviation that training leaves, or ones.
struct StoredTensor {
  StoredTensor(TensorRole its_role, std::vector<std::size_t> its_shape, bool ones) : role(its_role), shape(std::move(its_shape)) {
    std::size_t count = 1;
    for (const std::size_t extent : shape) count *= extent;
    bytes.resize(2 * count);
    std::minstd_rand random(1);
    for (std::size_t i = 0; i < count; ++i) {
      const float value = ones ? 1.0F : (static_cast<float>(random() % 65536) / 32768.0F - 1.0F) * 0.035F;
      std::uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      bytes[2 * i] = static_cast<std::uint8_t>(bits >> 16);
      bytes[2 * i + 1] = static_cast<std::uint8_t>(bits >> 24);
    }
  }
  TensorView view() const { return {{role, ElementType::kBF16, shape}, bytes}; }

  TensorRole role;
  std::vector<std::size_t> shape;
  std::vector<std::uint8_t> bytes;
};

void print(const char* step, const CallContext& context) {
  for (const PhaseTiming& phase : context.phases()) {
    std::printf("{\"step\": \"%s\", \"phase\": \"%s\", \"ms\": %.4f, \"flops\": %.0f, \"bytes\": %.0f}\n", step, phase.phase.c_str(),
                static_cast<double>(phase.busy_ns) * 1e-6, phase.flops, phase.bytes);
  }
}

InputSite site_of(TensorRole projection) {
  switch (projection) {
    case TensorRole::kOutputWeight:
      return InputSite::kAttentionOutput;
    case TensorRole::kGateWeight:
    case TensorRole::kUpWeight:
      return InputSite::kFeedForwardInput;
    case TensorRole::kDownWeight:
      return InputSite::kFeedForwardHidden;
    default:
      return InputSite::kAttentionInput;
  }
}

void run(const Size& size, Compute compute) {
  LoadedBackend loaded = load_cuda_backend(kUnlimited, 1);
  if (!loaded.backend) throw std::runtime_error("No CUDA backend: " + loaded.reason + ".");
  const BackendDescription description = loaded.backend->describe();
  std::fprintf(stderr, "%s, products: %s\n", loaded.reason.c_str(), description.gemm.c_str());
  const Architecture a = architecture_of(size);
  const auto session = loaded.backend->open_session(a, compute);

  const StoredTensor table(TensorRole::kTokenEmbedding, {kWords, a.hidden_size}, false);
  std::vector<StoredTensor> tensors;
  tensors.emplace_back(TensorRole::kAttentionNormWeight, std::vector<std::size_t>{a.hidden_size}, true);
  tensors.emplace_back(TensorRole::kFeedForwardNormWeight, std::vector<std::size_t>{a.hidden_size}, true);
  for (const auto& [role, shape] : projections(a)) tensors.emplace_back(role, shape, false);
  std::vector<TensorView> block;
  for (const StoredTensor& tensor : tensors) block.push_back(tensor.view());
  CallContext loading;
  session->load_shard("embedding", std::vector<TensorView>{table.view()}, loading);
  session->load_shard("block", block, loading);
  print("load", loading);

  GroupTokens group{0, size.samples, size.tokens, {}};
  for (std::size_t i = 0; i < size.samples * size.tokens; ++i) group.ids.push_back(static_cast<std::int32_t>(i * 17 % kWords));
  CallContext embedding;
  session->embed("embedding", group, embedding);
  print("embed", embedding);
  // Once for the device to warm up.
  CallContext warming;
  session->collect_statistics("block", 0, warming);
  CallContext collecting;
  const std::vector<SiteStatistics> statistics = session->collect_statistics("block", 0, collecting);
  print("collect", collecting);

  CallContext allocating;
  CallContext masking;
  for (const auto& [role, shape] : projections(a)) {
    const SiteStatistics& site = *std::ranges::find(statistics, site_of(role), &SiteStatistics::site);
    std::vector<float> mean_squares;
    for (const double sum : site.sums_of_squares)
      mean_squares.push_back(static_cast<float>(sum / static_cast<double>(size.samples * size.tokens)));
    AllocationInput input;
    input.samples = size.samples;
    input.mean_squares = mean_squares;
    input.quality_inputs = site.quality_inputs;
    input.target_sparsity = 0.7;
    const AllocatedRows rows = session->allocate_rows("block", role, input, {}, allocating);
    session->apply_mask("block", role, rows.mask, masking);
  }
  print("allocate", allocating);
  print("mask", masking);
  CallContext propagating;
  session->propagate("block", 0, propagating);
  print("propagate", propagating);
}

}  // namespace
}  // namespace secateur::bench

int main(int argc, char** argv) {
  using namespace secateur;
  const std::vector<std::string> options(argv + 1, argv + argc);
  const auto has = [&](const char* option) { return std::ranges::find(options, option) != options.end(); };
  try {
    bench::run(has("--tiny") ? bench::kTiny : bench::kQwen7B, has("--bf16") ? Compute::kBF16 : Compute::kF32);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
