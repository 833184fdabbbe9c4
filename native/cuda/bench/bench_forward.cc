// Block forward against the matrix library's own speed on the same matrix shapes, alternating, best of several rounds.
// Prints one JSON line per case: GFLOP/s of both and their ratio. Operations of the block: its matrix products, attention's included.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/gemm.h"
#include "secateur/backend.h"
#include "secateur/thread_pool.h"

using namespace secateur;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t kSamples = 4;
constexpr int kRounds = 5;
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
    {"hidden 2048, 512 tokens", qwen2(2048, 16, 4, 5632), 512},
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

// A session that holds a block with the case's weights and hidden states of one group.
class Bench {
 public:
  Bench(const Case& test_case, std::size_t threads, Compute compute, const std::vector<std::vector<float>>& weights)
      : test_case_(test_case), backend_(create_cpu_backend(threads, std::uint64_t{8} << 30)) {
    const Architecture& a = test_case.architecture;
    session_ = backend_->open_session(a, compute);
    const std::vector<float> ones(a.hidden_size, 1.0F);
    const std::vector<float> table = random_values(a.vocabulary_size * a.hidden_size, 1.0F);
    std::vector<TensorView> block = {view(TensorRole::kAttentionNormWeight, {a.hidden_size}, ones),
                                     view(TensorRole::kFeedForwardNormWeight, {a.hidden_size}, ones)};
    const auto matrices = projections(a);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const auto& [role, shape] = matrices[i];
      block.push_back(view(role, {shape.rows, shape.columns}, weights[i]));
    }
    CallContext context;
    session_->load_shard("block", block, context);
    session_->load_shard("embedding", std::vector<TensorView>{view(TensorRole::kTokenEmbedding, {a.vocabulary_size, a.hidden_size}, table)},
                         context);
    group_ = {0, kSamples, test_case.tokens, {}};
    for (std::size_t i = 0; i < kSamples * test_case.tokens; ++i)
      group_.ids.push_back(static_cast<std::int32_t>(i * 17 % a.vocabulary_size));
  }

  // Drops a random share of the weights of every projection.
  void prune(double sparsity) {
    std::mt19937 generator(2);
    std::bernoulli_distribution drop(sparsity);
    CallContext context;
    for (const auto& [role, shape] : projections(test_case_.architecture)) {
      std::vector<std::uint8_t> mask(shape.rows * ((shape.columns + 7) / 8));
      for (std::uint8_t& bits : mask) {
        for (unsigned bit = 0; bit < 8; ++bit) bits = static_cast<std::uint8_t>(bits | (drop(generator) ? 1U << bit : 0U));
      }
      session_->apply_mask("block", role, mask, context);
    }
  }

  double propagate(CallContext& context) {
    CallContext embedding;
    session_->embed("embedding", group_, embedding);
    return seconds_of([&] { session_->propagate("block", 0, context); });
  }

  double collect(CallContext& context) {
    return seconds_of([&] { session_->collect_statistics("block", 0, context); });
  }

 private:
  const Case& test_case_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<BackendSession> session_;
  GroupTokens group_;
};

// The same products as a block's, each thread with its own tile of tokens, nothing else.
class Products {
 public:
  Products(const Case& test_case, std::size_t threads, const std::vector<std::vector<float>>& weights)
      : weights_(weights),
        matrices_(projections(test_case.architecture)),
        tile_(std::min(kTokenTile, test_case.tokens)),
        tiles_(kSamples * test_case.tokens / tile_),
        widest_(std::max(test_case.architecture.intermediate_size, test_case.architecture.hidden_size)),
        inputs_(random_values(threads * tile_ * widest_, 1.0F)),
        outputs_(threads * tile_ * widest_),
        pool_(threads) {}

  double flops() const {
    double sum = 0;
    for (const auto& [role, shape] : matrices_) {
      sum += 2.0 * static_cast<double>(tile_ * tiles_) * static_cast<double>(shape.rows) * static_cast<double>(shape.columns);
    }
    return sum;
  }

  double multiply() {
    return seconds_of([&] {
      pool_.parallel_for(tiles_, [&](std::size_t, std::size_t worker) {
        for (std::size_t i = 0; i < weights_.size(); ++i) {
          const Shape shape = matrices_[i].second;
          cpu::multiply_transposed(tile_, shape.rows, shape.columns, 1.0F, inputs_.data() + worker * tile_ * widest_, shape.columns,
                                   weights_[i].data(), shape.columns, outputs_.data() + worker * tile_ * widest_, shape.rows);
        }
      });
    });
  }

 private:
  const std::vector<std::vector<float>>& weights_;
  std::vector<std::pair<TensorRole, Shape>> matrices_;
  std::size_t tile_;
  std::size_t tiles_;
  std::size_t widest_;
  std::vector<float> inputs_;
  std::vector<float> outputs_;
  ThreadPool pool_;
};

double attention_flops(const CallContext& context) {
  double flops = 0;
  for (const PhaseTiming& phase : context.phases()) {
    if (phase.phase == "attention") flops += phase.flops;
  }
  return flops;
}

// Shares of the busy time, for people who look for what to make faster.
void print_phases(const char* name, const CallContext& context) {
  double total = 0;
  for (const PhaseTiming& phase : context.phases()) total += static_cast<double>(phase.busy_ns);
  std::fprintf(stderr, "  %-16s", name);
  for (const PhaseTiming& phase : context.phases()) {
    std::fprintf(stderr, " %s %.1f%%", phase.phase.c_str(), 100 * static_cast<double>(phase.busy_ns) / total);
  }
  std::fprintf(stderr, "\n");
}

void run(const Case& test_case, std::size_t threads) {
  std::vector<std::vector<float>> weights;
  for (const auto& [role, shape] : projections(test_case.architecture)) weights.push_back(random_values(shape.rows * shape.columns, 0.02F));
  Products products(test_case, threads, weights);
  Bench dense(test_case, threads, Compute::kF32, weights);
  Bench pruned(test_case, threads, Compute::kF32, weights);
  pruned.prune(0.8);
  std::unique_ptr<Bench> narrow;
  std::unique_ptr<Bench> narrow_pruned;
  if (cpu::why_no_bf16().empty()) {
    narrow = std::make_unique<Bench>(test_case, threads, Compute::kBF16, weights);
    narrow_pruned = std::make_unique<Bench>(test_case, threads, Compute::kBF16, weights);
    narrow_pruned->prune(0.8);
  }

  CallContext contexts[5];
  dense.propagate(contexts[0]);
  const double flops = products.flops() + attention_flops(contexts[0]);
  double best[6] = {1e9, 1e9, 1e9, 1e9, 1e9, 1e9};
  for (int round = 0; round < kRounds; ++round) {
    best[0] = std::min(best[0], dense.propagate(contexts[0]));
    best[1] = std::min(best[1], dense.collect(contexts[1]));
    best[2] = std::min(best[2], pruned.propagate(contexts[2]));
    if (narrow) {
      best[3] = std::min(best[3], narrow->propagate(contexts[3]));
      best[4] = std::min(best[4], narrow_pruned->propagate(contexts[4]));
    }
    best[5] = std::min(best[5], products.multiply());
  }
  const double block_speed = flops / best[0] / 1e9;
  const double product_speed = products.flops() / best[5] / 1e9;
  std::printf(
      "{\"case\": \"%s\", \"threads\": %zu, \"blockGflops\": %.1f, \"gemmGflops\": %.1f, \"ratio\": %.3f, \"collect\": %.3f, "
      "\"pruned\": %.3f, \"bf16\": %.3f, \"prunedBf16\": %.3f}\n",
      test_case.name, threads, block_speed, product_speed, block_speed / product_speed, best[1] / best[0], best[0] / best[2],
      narrow ? best[0] / best[3] : 0.0, narrow ? best[0] / best[4] : 0.0);
  std::fflush(stdout);
  print_phases("dense", contexts[0]);
  print_phases("collect", contexts[1]);
  print_phases("pruned 80 %", contexts[2]);
  if (!narrow) return;
  print_phases("bf16", contexts[3]);
  print_phases("pruned, bf16", contexts[4]);
}

}  // namespace

int main() {
  const std::size_t processors = std::max(1U, std::thread::hardware_concurrency());
  for (const Case& test_case : kCases) {
    run(test_case, 1);
    if (processors > 1) run(test_case, processors);
  }
  return EXIT_SUCCESS;
}
