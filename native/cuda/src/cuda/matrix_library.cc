#include "cuda/matrix_library.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "cuda/cublas_lt.h"
#include "cuda/kernels/matrix_product_bf16.h"
#include "cuda/kernels/matrix_product_f32.h"

namespace secateur::gpu {
namespace {

int element_type(const MatrixProductF32&) { return CublasLt::kF32; }
int element_type(const MatrixProductBF16&) { return CublasLt::kBF16; }

cudaError_t own_product(const MatrixProductF32& task, cudaStream_t stream) { return matrix_product_f32(task, stream); }
cudaError_t own_product(const MatrixProductBF16& task, cudaStream_t stream) { return matrix_product_bf16(task, stream); }

// The largest power of two, 256 at most, whose multiple the address is: no algorithm asks for more.
std::uint32_t alignment_of(const void* pointer) {
  std::uint32_t alignment = 256;
  while (reinterpret_cast<std::uintptr_t>(pointer) % alignment != 0) alignment /= 2;
  return alignment;
}

class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() { static_cast<void>(cudaFree(data_)); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  cudaError_t allocate(std::size_t bytes) { return cudaMalloc(&data_, bytes); }
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

// An opaque object of cuBLASLt with the function that destroys it.
class Opaque {
 public:
  explicit Opaque(int (*destroy)(void*)) : destroy_(destroy) {}
  ~Opaque() {
    if (value_ != nullptr) destroy_(value_);
  }
  Opaque(const Opaque&) = delete;
  Opaque& operator=(const Opaque&) = delete;

  void** target() { return &value_; }
  void* get() const { return value_; }

 private:
  int (*destroy_)(void*);
  void* value_ = nullptr;
};

// What an algorithm was chosen for.
struct ProductKind {
  int element_type;
  std::array<std::size_t, 3> sizes;
  bool biased;
  std::array<std::uint32_t, 3> alignments;

  friend bool operator<(const ProductKind& a, const ProductKind& b) { return a.tied() < b.tied(); }
  std::tuple<int, std::array<std::size_t, 3>, bool, std::array<std::uint32_t, 3>> tied() const {
    return {element_type, sizes, biased, alignments};
  }
};

// cuBLASLt thinks in columns first: its left operand is our right one, transposed, and its result our result's transpose.
struct Plan {
  explicit Plan(const CublasLt& cublas)
      : description(cublas.destroy_description),
        left(cublas.destroy_layout),
        right(cublas.destroy_layout),
        result(cublas.destroy_layout) {}

  Opaque description;
  Opaque left;
  Opaque right;
  Opaque result;
  CublasLt::Algorithm algorithm{};
  bool usable = false;
};

}  // namespace

class MatrixLibrary::Products {
 public:
  Products() = default;
  ~Products() {
    if (handle_ != nullptr) cublas_.destroy(handle_);
  }
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  // Returns why cuBLASLt cannot be used, or nothing.
  std::string open();
  const std::string& version() const { return cublas_.version; }
  // False where cuBLASLt does not take the product.
  template <class Task>
  bool start(const Task& task, cudaStream_t stream);

 private:
  template <class Task>
  bool prepare(const Task& task, const ProductKind& kind, Plan& plan) const;

  CublasLt cublas_{};
  void* handle_ = nullptr;
  DeviceMemory workspace_;
  std::map<ProductKind, Plan> plans_;
};

std::string MatrixLibrary::Products::open() {
  const std::string problem = load_cublas_lt(cublas_);
  if (!problem.empty()) return problem;
  const int status = cublas_.create(&handle_);
  if (status != CublasLt::kSuccess) return "cuBLASLt " + version() + " does not start: status " + std::to_string(status);
  const cudaError_t allocated = workspace_.allocate(kMatrixLibraryBytes);
  // Told here, it shall not surface at a later call.
  if (allocated != cudaSuccess) static_cast<void>(cudaGetLastError());
  return allocated == cudaSuccess ? "" : std::string("no device memory for cuBLASLt: ") + cudaGetErrorString(allocated);
}

template <class Task>
bool MatrixLibrary::Products::prepare(const Task& task, const ProductKind& kind, Plan& plan) const {
  const auto describe = [&](int attribute, const auto& value) {
    return cublas_.set_description(plan.description.get(), attribute, &value, sizeof(value)) == CublasLt::kSuccess;
  };
  const auto lay_out = [&](Opaque& layout, int type, std::size_t rows, std::size_t columns) {
    return cublas_.create_layout(layout.target(), type, rows, columns, static_cast<std::int64_t>(rows)) == CublasLt::kSuccess;
  };
  Opaque preference(cublas_.destroy_preference);
  const auto prefer = [&](int attribute, const auto& value) {
    return cublas_.set_preference(preference.get(), attribute, &value, sizeof(value)) == CublasLt::kSuccess;
  };
  bool made = cublas_.create_description(plan.description.target(), CublasLt::kComputeF32, CublasLt::kF32) == CublasLt::kSuccess &&
              describe(CublasLt::kTransposeLeft, CublasLt::kTransposed);
  if (made && kind.biased) made = describe(CublasLt::kEpilogue, CublasLt::kAddBias) && describe(CublasLt::kBiasPointer, task.bias);
  made = made && lay_out(plan.left, kind.element_type, task.k, task.n) && lay_out(plan.right, kind.element_type, task.k, task.m) &&
         lay_out(plan.result, CublasLt::kF32, task.n, task.m) &&
         cublas_.create_preference(preference.target()) == CublasLt::kSuccess &&
         prefer(CublasLt::kMaximumWorkspace, kMatrixLibraryBytes) && prefer(CublasLt::kAlignmentLeft, kind.alignments[1]) &&
         prefer(CublasLt::kAlignmentRight, kind.alignments[0]) && prefer(CublasLt::kAlignmentAddend, kind.alignments[2]) &&
         prefer(CublasLt::kAlignmentResult, kind.alignments[2]);
  if (!made) return false;
  CublasLt::Heuristic found{};
  int found_count = 0;
  const int status = cublas_.find_algorithms(handle_, plan.description.get(), plan.left.get(), plan.right.get(), plan.result.get(),
                                             plan.result.get(), preference.get(), 1, &found, &found_count);
  plan.algorithm = found.algorithm;
  return status == CublasLt::kSuccess && found_count > 0 && found.status == CublasLt::kSuccess;
}

template <class Task>
bool MatrixLibrary::Products::start(const Task& task, cudaStream_t stream) {
  if (task.m == 0 || task.n == 0 || task.k == 0) return false;
  const ProductKind kind{element_type(task),
                         {task.m, task.n, task.k},
                         task.bias != nullptr,
                         {alignment_of(task.left), alignment_of(task.right), alignment_of(task.result)}};
  const auto [place, is_new] = plans_.try_emplace(kind, cublas_);
  Plan& plan = place->second;
  if (is_new) plan.usable = prepare(task, kind, plan);
  if (!plan.usable) return false;
  const void* const bias = task.bias;
  if (bias != nullptr &&
      cublas_.set_description(plan.description.get(), CublasLt::kBiasPointer, &bias, sizeof(bias)) != CublasLt::kSuccess) {
    return false;
  }
  const float one = 1;
  const float zero = 0;
  return cublas_.multiply(handle_, plan.description.get(), &one, task.right, plan.left.get(), task.left, plan.right.get(), &zero,
                          task.result, plan.result.get(), task.result, plan.result.get(), &plan.algorithm, workspace_.data(),
                          kMatrixLibraryBytes, stream) == CublasLt::kSuccess;
}

namespace {

// Between -1 and 1, exact in bfloat16's 8 bits, and in no simple pattern.
float test_value(std::size_t index) { return static_cast<float>(index * index % 509 % 255) / 128 - 1; }

std::vector<float> test_values(std::size_t count, const float*) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = test_value(i);
  return values;
}

}  // namespace

}  // namespace secateur::gpu
