#include "backend_under_test.h"

#include <stdexcept>
#include <utility>

#include "common/backend_loader.h"
#include "cpu/gemm.h"

namespace secateur::test {

namespace {

std::string chosen = "cpu";

}  // namespace

void choose_backend(const std::string& name) {
  if (name != "cpu" && name != "cuda") throw std::invalid_argument("--backend is " + name + "; it is cpu or cuda.");
  chosen = name;
}

bool is_cpu() { return chosen == "cpu"; }

bool is_emulated() {
  static const bool emulated = !is_cpu() && open_backend(1, 1U << 20)->describe().instruction_set.find("emulated") != std::string::npos;
  return emulated;
}

std::unique_ptr<Backend> open_backend(std::size_t threads, std::uint64_t memory_budget_bytes) {
  if (is_cpu()) return create_cpu_backend(threads, memory_budget_bytes);
  LoadedBackend loaded = load_cuda_backend(memory_budget_bytes, threads);
  if (!loaded.backend) throw std::runtime_error("No CUDA backend: " + loaded.reason + ".");
  return std::move(loaded.backend);
}

std::string why_no(Compute compute) {
  if (!is_cpu() || compute == Compute::kF32) return "";
  return compute == Compute::kBF16 ? cpu::why_no_bf16() : "only GPUs multiply float16 values";
}

}  // namespace secateur::test
