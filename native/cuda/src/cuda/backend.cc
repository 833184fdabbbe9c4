// The CUDA backend, and what its library exports.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "common/shard_layout.h"
#include "cpu/allocation/checked_input.h"
#include "cpu/gemm.h"
#include "cuda/cuda_error.h"
#include "cuda/host_work.h"
#include "cuda/kernels/attention.h"
#include "cuda/memory_plan.h"
#include "cuda/row_allocation.h"
#include "cuda/session.h"
#include "cuda/transfers.h"
#include "secateur/backend_library.h"

namespace secateur::gpu {

namespace {

// Left to the runtime and to whatever else needs a little.
constexpr double kUsableShare = 0.95;

std::uint64_t usable_bytes(std::uint64_t memory_budget_bytes) {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
  return std::min(memory_budget_bytes, static_cast<std::uint64_t>(static_cast<double>(free_bytes) * kUsableShare));
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::uint64_t memory_budget_bytes, std::size_t threads, const Placement& placement)
      : products_(stream_.get()), budget_(usable_bytes(memory_budget_bytes)), pool_(threads, placement) {
    cpu::configure_gemm(cpu::selected_instruction_set());
    check(cudaGetDeviceProperties(&properties_, 0), "describing the device");
  }

  BackendDescription describe() const override {
    return {"cuda",
            std::string(properties_.name) + ", compute capability " + std::to_string(properties_.major) + "." +
                std::to_string(properties_.minor),
            products_.description(), 1};
  }
  // What sessions have taken from the device, for what they do now or later.
  std::uint64_t memory_used_bytes() const override { return budget_.used_bytes(); }
  // Of what was really in use of it.
  std::uint64_t memory_peak_bytes() const override { return in_use_.peak_bytes(); }
  MemoryPlan plan_session(const Architecture& architecture, Precision precision, const Workload& workload) const override {
    require_narrow_heads(architecture);
    return gpu::plan_session(architecture, precision, workload, left_bytes(budget_), pool_.size()).memory;
  }
  std::unique_ptr<BackendSession> open_session(const Architecture& architecture, Precision precision, const Workload& workload) override {
    require_narrow_heads(architecture);
    std::optional<SessionPlan> plan;
    if (!workload.empty()) {
      plan = gpu::plan_session(architecture, precision, workload, left_bytes(budget_), pool_.size());
      require_room(plan->memory, budget_);
    }
    return std::make_unique<CudaSession>(architecture, precision, budget_, in_use_, products_, pool_, plan);
  }
  AllocatedRows allocate_matrix(const AllocationInput& input, const AllocationOptions& options, CallContext& context) override {
    allocation::require_valid(input, options);
    allocation::require_size(input.weights.size(), input.rows * input.columns, "weights");
    if (!runs_on_device(options)) return allocate_on_host(input, options, pool_, context);
    Stream stream;
    Timeline timeline(stream);
    SessionMemory memory(budget_, in_use_);
    memory.device.reserve(block_bytes<float>(input.weights.size()) + allocation_bytes(input.rows, input.columns, input.samples, options),
                          "an allocation");
    DeviceBuffer<float> weights(memory, input.weights.size(), "weights of an allocation");
    upload(input.weights, weights.data(), stream, "uploading weights");
    return gpu::allocate_rows(input, weights.data(), options, memory, pool_, stream, timeline, context);
  }

 private:
  // Attention would fail at the first block.
  static void require_narrow_heads(const Architecture& architecture) {
    check_architecture(architecture);
    if (architecture.head_dimension <= kMaximumHeadDimension) return;
    throw Error(ErrorCode::kFailedPrecondition, "The cuda backend cannot compute heads of " + std::to_string(architecture.head_dimension) +
                                                    " dimensions: its attention takes " + std::to_string(kMaximumHeadDimension) +
                                                    " at most. Use --backend cpu.");
  }

  // Products of all sessions: they wait for each other, because every call waits for its own.
  Stream stream_;
  MatrixLibrary products_;
  MemoryBudget budget_;
  MemoryBudget in_use_{UINT64_MAX};
  cudaDeviceProp properties_{};
  // For what is done on the host.
  ThreadPool pool_;
};

void tell(const std::string& text, char* reason, std::size_t capacity) { std::snprintf(reason, capacity, "%s", text.c_str()); }

}  // namespace

}  // namespace secateur::gpu

const char* secateur_backend_mark() { return SECATEUR_BACKEND_MARK; }

int secateur_backend_query(char* reason, std::size_t capacity) {
  using secateur::gpu::tell;
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaErrorInsufficientDriver) {
    tell("no NVIDIA driver, or one older than CUDA " + std::to_string(CUDART_VERSION / 1000) + "." +
             std::to_string(CUDART_VERSION % 1000 / 10) + " needs",
         reason, capacity);
    return 0;
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && devices == 0)) {
    tell("the NVIDIA driver sees no device", reason, capacity);
    return 0;
  }
  if (error != cudaSuccess) {
    tell(std::string("the CUDA runtime failed: ") + cudaGetErrorString(error), reason, capacity);
    return 0;
  }
  cudaDeviceProp properties;
  const cudaError_t described = cudaGetDeviceProperties(&properties, 0);
  if (described != cudaSuccess) {
    tell(std::string("the first device cannot be used: ") + cudaGetErrorString(described), reason, capacity);
    return 0;
  }
  tell(std::to_string(devices) + (devices == 1 ? " device: " : " devices, of which the first is used: ") + properties.name +
           ", compute capability " + std::to_string(properties.major) + "." + std::to_string(properties.minor),
       reason, capacity);
  return devices;
}

secateur::Backend* secateur_backend_create(std::uint64_t memory_budget_bytes, std::size_t threads, const secateur::Placement& placement,
                                           char* reason, std::size_t capacity) {
  try {
    std::unique_ptr<secateur::Backend> backend = std::make_unique<secateur::gpu::CudaBackend>(memory_budget_bytes, threads, placement);
    secateur_backend_query(reason, capacity);
    return backend.release();
  } catch (const std::exception& error) {
    secateur::gpu::tell(error.what(), reason, capacity);
    return nullptr;
  }
}
