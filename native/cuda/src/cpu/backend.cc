#include "secateur/backend.h"

#include "cpu/gemm.h"
#include "cpu/memory_plan.h"
#include "cpu/product_speed.h"
#include "cpu/session.h"
#include "secateur/thread_pool.h"

namespace secateur {

namespace {

constexpr std::size_t kMaximumThreads = 1024;

class CpuBackend final : public Backend {
 public:
  CpuBackend(std::size_t threads, std::uint64_t memory_budget_bytes, const Placement& placement)
      : budget_(memory_budget_bytes), pool_(threads, placement) {
    cpu::configure_gemm(cpu::selected_instruction_set());
  }

  BackendDescription describe() const override {
    return {"cpu", std::string(name_of(cpu::selected_instruction_set())), cpu::describe_gemm(), pool_.size()};
  }
  std::uint64_t memory_used_bytes() const override { return budget_.used_bytes(); }
  std::uint64_t memory_peak_bytes() const override { return budget_.peak_bytes(); }
  MemoryPlan plan_session(const Architecture& architecture, Precision precision, const Workload& workload) const override {
    require_products(precision.compute);
    return plan(architecture, precision, workload).memory;
  }
  std::unique_ptr<BackendSession> open_session(const Architecture& architecture, Precision precision, const Workload& workload) override {
    require_products(precision.compute);
    cpu::ProgressRoom progress;
    if (!workload.empty()) {
      const cpu::SessionPlan planned = plan(architecture, precision, workload);
      require_room(planned.memory, budget_);
      progress = planned.progress;
    }
    return std::make_unique<cpu::CpuSession>(architecture, precision, workload.dense_targets, progress, budget_, pool_);
  }
  double measure_product_speed(Compute compute, CallContext& context) override {
    if (!why_no_products(compute).empty()) return 0;
    return cpu::measure_product_speed(compute, budget_, pool_, context);
  }
  AllocatedRows allocate_matrix(const AllocationInput& input, const AllocationOptions& options, CallContext& context) override {
    const Reservation scratch(budget_,
                              allocation_scratch_bytes(input.rows, input.columns, input.samples, options.allocation, options.layer_quality,
                                                       options.row_quality, pool_.size()),
                              "the allocation");
    return allocate_rows(input, options, pool_, context);
  }

 private:
  cpu::SessionPlan plan(const Architecture& architecture, Precision precision, const Workload& workload) const {
    return cpu::plan_session(architecture, precision, workload, pool_.size(), left_bytes(budget_));
  }
  static void require_products(Compute compute) {
    const std::string reason = why_no_products(compute);
    if (reason.empty()) return;
    const std::string type = compute == Compute::kBF16 ? "bf16" : "f16";
    throw Error(ErrorCode::kFailedPrecondition, "The cpu backend cannot compute in " + type + ": " + reason + ". Use --compute f32.");
  }
  // Empty where there are such products.
  static std::string why_no_products(Compute compute) {
    if (compute == Compute::kF16) return "only GPUs multiply float16 values";
    return compute == Compute::kBF16 ? cpu::why_no_bf16() : "";
  }

  MemoryBudget budget_;
  ThreadPool pool_;
};

}  // namespace

std::unique_ptr<Backend> create_cpu_backend(std::size_t threads, std::uint64_t memory_budget_bytes, const Placement& placement) {
  if (threads == 0 || threads > kMaximumThreads) {
    throw Error(ErrorCode::kInvalidArgument,
                "threads must be from 1 to " + std::to_string(kMaximumThreads) + ", not " + std::to_string(threads) + ".");
  }
  return std::make_unique<CpuBackend>(threads, memory_budget_bytes, placement);
}

}  // namespace secateur
