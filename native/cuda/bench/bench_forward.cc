// Block forward against the matrix library's own speed on the same matrix shapes, alternating, best of several rounds.
// Prints one JSON line per case: GFLOP/s of both and their ratio. Operations of the block: its matrix products, attention's included.
#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "secateur/backend.h"
#include "secateur/thread_pool.h"

using namespace secateur;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t kSamples = 8;
constexpr int kRounds = 9;
constexpr std::size_t kTokenTile = 256;

struct Case {
  const char* name;
  Architecture architecture;
  std::size_t tokens;
};

Architecture qwen2(std::size_t hidden, std::size_t heads, std::size_t key_heads, std::size_t intermediate) {
  return {hidden,
          intermediate,
          heads,
          key_heads,
          hidden / heads,
          4096,
          4096,
          Normalization::kRms,
          1e-6,
          PositionEncoding::kRotary,
          10000.0,
          0,
          FeedForward::kGatedSilu};
}

const Case kCases[] = {
    {"books-qwen2: hidden 256, 256 tokens", qwen2(256, 8, 2, 704), 256},
    {"hidden 1024, 512 tokens", qwen2(1024, 16, 4, 2816), 512},
};

struct Shape {
  std::size_t rows;
  std::size_t columns;
};

std::vector<std::pair<TensorRole, Shape>> projections(const Architecture& a) {
  return {{TensorRole::kQueryWeight, {a.query_width(), a.hidden_size}},    {TensorRole::kKeyWeight, {a.key_width(), a.hidden_size}},
          {TensorRole::kValueWeight, {a.key_width(), a.hidden_size}},      {TensorRole::kOutputWeight, {a.hidden_size, a.query_width()}},
          {TensorRole::kGateWeight, {a.intermediate_size, a.hidden_size}}, {TensorRole::kUpWeight, {a.intermediate_size, a.hidden_size}},
          {TensorRole::kDownWeight, {a.hidden_size, a.intermediate_size}}};
}

std::vector<float> random_values(std::size_t size, float scale) {
  static std::mt19937 generator(1);
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(size);
  for (float& value : values) value = normal(generator);
  return values;
}

TensorView view(TensorRole role, std::vector<std::size_t> shape, const std::vector<float>& values) {
  return {role, ElementType::kF32, std::move(shape), {reinterpret_cast<const std::uint8_t*>(values.data()), values.size() * sizeof(float)}};
}

double seconds_of(const auto& work) {
  const Clock::time_point begin = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void run(const Case& test_case, std::size_t threads) {
  const Architecture& a = test_case.architecture;
  const std::unique_ptr<Backend> backend = create_cpu_backend(threads, std::uint64_t{8} << 30);
  const std::unique_ptr<BackendSession> session = backend->open_session(a);
  CallContext context;
  const std::vector<float> ones(a.hidden_size, 1.0F);
  const std::vector<float> table = random_values(a.vocabulary_size * a.hidden_size, 1.0F);
  std::vector<std::vector<float>> weights;
  std::vector<TensorView> block = {view(TensorRole::kAttentionNormWeight, {a.hidden_size}, ones),
                                   view(TensorRole::kFeedForwardNormWeight, {a.hidden_size}, ones)};
  const std::vector<std::pair<TensorRole, Shape>> matrices = projections(a);
  for (const auto& [role, shape] : matrices) weights.push_back(random_values(shape.rows * shape.columns, 0.02F));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto& [role, shape] = matrices[i];
    block.push_back(view(role, {shape.rows, shape.columns}, weights[i]));
  }
  session->load_shard("block", block, context);
  session->load_shard("embedding", std::vector<TensorView>{view(TensorRole::kTokenEmbedding, {a.vocabulary_size, a.hidden_size}, table)},
                      context);
  GroupTokens group{0, kSamples, test_case.tokens, {}};
  for (std::size_t i = 0; i < kSamples * test_case.tokens; ++i) group.ids.push_back(static_cast<std::int32_t>(i * 17 % a.vocabulary_size));
  session->embed("embedding", group, context);

  // The peer: the same products, each thread with its own tile of tokens, nothing else.
  ThreadPool pool(threads);
  const std::size_t tile = std::min(kTokenTile, test_case.tokens);
  const std::size_t tiles = kSamples * test_case.tokens / tile;
  const std::size_t widest = std::max(a.intermediate_size, a.hidden_size);
  const std::vector<float> inputs = random_values(threads * tile * widest, 1.0F);
  std::vector<float> outputs(threads * tile * widest);
  double product_flops = 0;
  for (const auto& [role, shape] : matrices) {
    product_flops += 2.0 * static_cast<double>(tile * tiles) * static_cast<double>(shape.rows) * static_cast<double>(shape.columns);
  }
  const auto multiply_all = [&] {
    pool.parallel_for(tiles, [&](std::size_t, std::size_t worker) {
      for (std::size_t i = 0; i < weights.size(); ++i) {
        const Shape shape = matrices[i].second;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<blasint>(tile), static_cast<blasint>(shape.rows),
                    static_cast<blasint>(shape.columns), 1.0F, inputs.data() + worker * tile * widest, static_cast<blasint>(shape.columns),
                    weights[i].data(), static_cast<blasint>(shape.columns), 0.0F, outputs.data() + worker * tile * widest,
                    static_cast<blasint>(shape.rows));
      }
    });
  };

  CallContext counted;
  session->propagate("block", 0, counted);
  double block_flops = 0;
  for (const PhaseTiming& phase : counted.phases()) {
    if (phase.phase == "gemm" || phase.phase == "attention") block_flops += phase.flops;
  }
  double block_seconds = 1e9;
  double product_seconds = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    session->embed("embedding", group, context);
    block_seconds = std::min(block_seconds, seconds_of([&] { session->propagate("block", 0, context); }));
    product_seconds = std::min(product_seconds, seconds_of(multiply_all));
  }
  const double block_speed = block_flops / block_seconds / 1e9;
  const double product_speed = product_flops / product_seconds / 1e9;
  std::printf("{\"case\": \"%s\", \"threads\": %zu, \"blockGflops\": %.1f, \"gemmGflops\": %.1f, \"ratio\": %.3f}\n", test_case.name,
              threads, block_speed, product_speed, block_speed / product_speed);
}

}  // namespace

int main() {
  openblas_set_num_threads(1);
  const std::size_t processors = std::max(1U, std::thread::hardware_concurrency());
  for (const Case& test_case : kCases) {
    run(test_case, 1);
    if (processors > 1) run(test_case, processors);
  }
  return EXIT_SUCCESS;
}
