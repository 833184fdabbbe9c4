#include <omp.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <utility>
#include <vector>

#include "cpu/gemm.h"
#include "secateur/error.h"

namespace secateur::cpu {

namespace {

using dnnl::memory;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::stream& stream() {
  thread_local dnnl::stream of_this_thread(engine());
  return of_this_thread;
}

// The library would start threads of its own; how many is a setting of each thread that calls it.
void use_one_thread() {
  thread_local const bool is_set = (omp_set_num_threads(1), true);
  static_cast<void>(is_set);
}

dnnl_dim_t to_dim(std::size_t size) { return static_cast<dnnl_dim_t>(size); }

void check(dnnl_status_t status, const char* call) {
  if (status == dnnl_success) return;
  if (status == dnnl_out_of_memory) throw OutOfMemory("The system has no memory left for a matrix product.", 0, 0);
  throw Error(ErrorCode::kInternal, std::string(call) + " of oneDNN failed with status " + std::to_string(status) + ".");
}

// Runs calls of the C++ interface, whose errors are of another type.
template <class Work>
auto translate_errors(const char* call, const Work& work) {
  try {
    return work();
  } catch (const dnnl::error& error) {
    check(error.status, call);
    throw;
  }
}

// Bits of an instruction set include those it builds on.
bool may_use(dnnl_cpu_isa_t isa) { return (dnnl_get_effective_cpu_isa() & isa) == isa; }

}  // namespace

void configure_gemm(InstructionSet instruction_set) {
  // Fails when products were made before, by another engine of this process with the same setting.
  if (instruction_set == InstructionSet::kAvx2) static_cast<void>(dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2));
  if (instruction_set == InstructionSet::kGeneric) static_cast<void>(dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41));
}

std::string describe_gemm() {
  const dnnl_version_t* const version = dnnl_version();
  return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
}

std::string why_no_bf16() {
  if (may_use(dnnl_cpu_isa_avx512_core_bf16)) return "";
  return "this processor has no bfloat16 products (AVX512_BF16 or AMX)";
}

bool multiplies_bf16_in_tiles() { return may_use(dnnl_cpu_isa_avx512_core_amx); }

void multiply_transposed(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride,
                         const float* right, std::size_t right_stride, float* result, std::size_t result_stride, bool accumulate) {
  use_one_thread();
  check(dnnl_sgemm('N', 'T', to_dim(m), to_dim(n), to_dim(k), scale, left, to_dim(left_stride), right, to_dim(right_stride),
                   accumulate ? 1.0F : 0.0F, result, to_dim(result_stride)),
        "dnnl_sgemm");
}

void multiply_left_transposed(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride,
                              const float* right, std::size_t right_stride, float* result, std::size_t result_stride, bool accumulate) {
  use_one_thread();
  check(dnnl_sgemm('T', 'N', to_dim(m), to_dim(n), to_dim(k), scale, left, to_dim(left_stride), right, to_dim(right_stride),
                   accumulate ? 1.0F : 0.0F, result, to_dim(result_stride)),
        "dnnl_sgemm");
}

void multiply(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride, const float* right,
              std::size_t right_stride, float* result, std::size_t result_stride, bool accumulate) {
  use_one_thread();
  check(dnnl_sgemm('N', 'N', to_dim(m), to_dim(n), to_dim(k), scale, left, to_dim(left_stride), right, to_dim(right_stride),
                   accumulate ? 1.0F : 0.0F, result, to_dim(result_stride)),
        "dnnl_sgemm");
}

struct PackedMatrix::State {
  struct Part {
    std::size_t rows;
    // Where the part begins in `bytes`, and how it lies there.
    std::size_t offset;
    memory::desc layout;
  };
  // A compiled product: its scratch memory is the caller's, so that threads can share it.
  struct Product {
    dnnl::matmul primitive;
    memory::desc scratch;
    memory::desc input;
    memory::desc output;
  };
  struct Shape {
    std::size_t rows;
    std::size_t tokens;
    auto operator<=>(const Shape&) const = default;
  };

  std::size_t columns = 0;
  std::size_t part_rows = 0;
  std::vector<Part> parts;
  Buffer<std::uint8_t> bytes;
  std::mutex mutex;
  std::map<Shape, Product> products;

  const Product& product(const Part& part, std::size_t tokens) {
    const std::lock_guard lock(mutex);
    const Shape shape{part.rows, tokens};
    const auto found = products.find(shape);
    if (found != products.end()) return found->second;
    const memory::dim m = to_dim(tokens);
    const memory::dim n = to_dim(part.rows);
    const memory::dim k = to_dim(columns);
    const memory::desc input({m, k}, memory::data_type::bf16, memory::format_tag::ab);
    const memory::desc output({m, n}, memory::data_type::f32, memory::format_tag::ab);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::matmul::primitive_desc description({input, part.layout, output}, attributes, engine());
    Product made{dnnl::matmul(description), description.scratchpad_desc(), input, output};
    return products.emplace(shape, std::move(made)).first->second;
  }
};

namespace {

constexpr std::size_t kPartAlignment = 64;
// The layout is made for tiles of this many tokens; other numbers use it too.
constexpr memory::dim kTypicalTokens = 256;

memory::desc packed_layout(std::size_t rows, std::size_t columns) {
  const memory::dim n = to_dim(rows);
  const memory::dim k = to_dim(columns);
  const memory::desc input({kTypicalTokens, k}, memory::data_type::bf16, memory::format_tag::ab);
  const memory::desc any({k, n}, memory::data_type::bf16, memory::format_tag::any);
  const memory::desc output({kTypicalTokens, n}, memory::data_type::f32, memory::format_tag::ab);
  return dnnl::matmul::primitive_desc({input, any, output}, engine()).weights_desc();
}

// Calls visit(rows, layout, offset) for every part of a matrix and returns the bytes of all.
template <class Visit>
std::size_t lay_out_parts(std::size_t rows, std::size_t columns, std::size_t part_rows, const Visit& visit) {
  std::size_t size = 0;
  translate_errors("matmul", [&] {
    for (std::size_t row = 0; row < rows; row += part_rows) {
      const std::size_t count = std::min(part_rows, rows - row);
      const memory::desc layout = packed_layout(count, columns);
      visit(count, layout, size);
      size += (layout.get_size() + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
    }
  });
  return size;
}

}  // namespace

std::uint64_t PackedMatrix::bytes(std::size_t rows, std::size_t columns, std::size_t part_rows) {
  use_one_thread();
  return lay_out_parts(rows, columns, part_rows, [](auto&&...) {});
}

PackedMatrix::PackedMatrix(MemoryBudget& budget, std::size_t rows, std::size_t columns, std::size_t part_rows, const std::string& purpose)
    : state_(std::make_unique<State>()) {
  use_one_thread();
  state_->columns = columns;
  state_->part_rows = part_rows;
  const std::size_t size = lay_out_parts(rows, columns, part_rows, [&](std::size_t count, const memory::desc& layout, std::size_t offset) {
    state_->parts.push_back({count, offset, layout});
  });
  state_->bytes = Buffer<std::uint8_t>(budget, size, purpose);
}

PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&& other) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&& other) noexcept = default;

std::size_t PackedMatrix::parts() const noexcept { return state_->parts.size(); }

void PackedMatrix::pack(std::size_t part_index, const float* values) {
  use_one_thread();
  const State::Part& part = state_->parts[part_index];
  translate_errors("reorder", [&] {
    const memory::desc layout({to_dim(state_->columns), to_dim(part.rows)}, memory::data_type::f32, memory::format_tag::ba);
    // Only read.
    float* const first = const_cast<float*>(values + part_index * state_->part_rows * state_->columns);
    memory source(layout, engine(), first);
    memory target(part.layout, engine(), state_->bytes.data() + part.offset);
    dnnl::reorder(source, target).execute(stream(), source, target);
    stream().wait();
  });
}

void PackedMatrix::multiply(std::size_t part_index, std::size_t tokens, const std::uint16_t* x, float* result) const {
  use_one_thread();
  const State::Part& part = state_->parts[part_index];
  translate_errors("matmul", [&] {
    const State::Product& product = state_->product(part, tokens);
    const memory input(product.input, engine(), const_cast<std::uint16_t*>(x));
    const memory weights(part.layout, engine(), state_->bytes.data() + part.offset);
    const memory output(product.output, engine(), result);
    const memory scratch(product.scratch, engine());
    product.primitive.execute(stream(),
                              {{DNNL_ARG_SRC, input}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, output}, {DNNL_ARG_SCRATCHPAD, scratch}});
    stream().wait();
  });
}

}  // namespace secateur::cpu
