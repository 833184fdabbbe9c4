#include "cuda/matrix_library.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "cuda/cublas_lt.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/matrix_product_narrow.h"

namespace secateur::gpu {
namespace {

int element_type(const MatrixProductF32&) { return CublasLt::kF32; }
int element_type(const MatrixProductNarrow<bfloat16>&) { return CublasLt::kBF16; }
int element_type(const MatrixProductNarrow<float16>&) { return CublasLt::kF16; }

cudaError_t own_product(const MatrixProductF32& task, cudaStream_t stream) { return matrix_product_f32(task, stream); }
template <class Narrow>
cudaError_t own_product(const MatrixProductNarrow<Narrow>& task, cudaStream_t stream) {
  return matrix_product_narrow(task, stream);
}

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
      : description(cublas.destroy_description), left(cublas.destroy_layout), right(cublas.destroy_layout), result(cublas.destroy_layout) {}

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
         lay_out(plan.result, CublasLt::kF32, task.n, task.m) && cublas_.create_preference(preference.target()) == CublasLt::kSuccess &&
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

// The product that is done twice when the library is opened.
constexpr std::size_t kTestRows = 96;
constexpr std::size_t kTestColumns = 80;
constexpr std::size_t kTestInner = 72;
// Sums of kTestInner products of values up to 1: float32 stays far below, TF32 does not.
constexpr float kTestTolerance = 1e-4F;

std::vector<float> test_values(std::size_t count, std::size_t first) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = std::sin(static_cast<float>(first + i));
  return values;
}

// Device memory with a vector's contents; the vector has to last until the stream has got there.
cudaError_t upload(const std::vector<float>& values, DeviceMemory& memory, cudaStream_t stream) {
  const std::size_t bytes = values.size() * sizeof(float);
  const cudaError_t error = memory.allocate(bytes);
  return error == cudaSuccess ? cudaMemcpyAsync(memory.data(), values.data(), bytes, cudaMemcpyHostToDevice, stream) : error;
}

// An operand of a product: as uploaded, or narrowed from that.
cudaError_t place_operand(const float* uploaded, std::size_t, DeviceMemory&, const float*& operand, cudaStream_t) {
  operand = uploaded;
  return cudaSuccess;
}
template <class Narrow>
cudaError_t place_operand(const float* uploaded, std::size_t size, DeviceMemory& memory, const Narrow*& operand, cudaStream_t stream) {
  const cudaError_t error = memory.allocate(size * sizeof(Narrow));
  operand = static_cast<const Narrow*>(memory.data());
  return error == cudaSuccess ? narrow(uploaded, static_cast<Narrow*>(memory.data()), size, stream) : error;
}

struct Comparison {
  cudaError_t error = cudaSuccess;
  bool taken = false;
  bool equal = false;
};

// The same product by `start` and by the kernels of ours.
template <class Task, class Start>
Comparison compare(const Start& start, cudaStream_t stream) {
  const std::vector<float> left = test_values(kTestRows * kTestInner, 0);
  const std::vector<float> right = test_values(kTestColumns * kTestInner, left.size());
  const std::vector<float> bias = test_values(kTestColumns, left.size() + right.size());
  std::vector<float> expected(kTestRows * kTestColumns, std::nanf(""));
  std::vector<float> actual = expected;
  DeviceMemory device_left;
  DeviceMemory device_right;
  DeviceMemory narrow_left;
  DeviceMemory narrow_right;
  DeviceMemory device_bias;
  DeviceMemory device_expected;
  DeviceMemory device_actual;
  Comparison comparison;
  const auto succeeded = [&](cudaError_t error) {
    comparison.error = error;
    return error == cudaSuccess;
  };
  if (!succeeded(upload(left, device_left, stream)) || !succeeded(upload(right, device_right, stream)) ||
      !succeeded(upload(bias, device_bias, stream)) || !succeeded(upload(expected, device_expected, stream)) ||
      !succeeded(upload(actual, device_actual, stream))) {
    return comparison;
  }
  Task task{};
  task.m = kTestRows;
  task.n = kTestColumns;
  task.k = kTestInner;
  if (!succeeded(place_operand(static_cast<const float*>(device_left.data()), left.size(), narrow_left, task.left, stream)) ||
      !succeeded(place_operand(static_cast<const float*>(device_right.data()), right.size(), narrow_right, task.right, stream))) {
    return comparison;
  }
  task.bias = static_cast<const float*>(device_bias.data());
  task.result = static_cast<float*>(device_expected.data());
  if (!succeeded(own_product(task, stream))) return comparison;
  task.result = static_cast<float*>(device_actual.data());
  comparison.taken = start(task, stream);
  if (!comparison.taken) return comparison;
  const std::size_t bytes = expected.size() * sizeof(float);
  if (!succeeded(cudaMemcpyAsync(expected.data(), device_expected.data(), bytes, cudaMemcpyDeviceToHost, stream)) ||
      !succeeded(cudaMemcpyAsync(actual.data(), device_actual.data(), bytes, cudaMemcpyDeviceToHost, stream)) ||
      !succeeded(cudaStreamSynchronize(stream))) {
    return comparison;
  }
  comparison.equal = true;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!(std::abs(actual[i] - expected[i]) <= kTestTolerance)) comparison.equal = false;
  }
  return comparison;
}

// Why that comparison speaks against the library, or nothing.
std::string problem_of(const Comparison& comparison, const char* type) {
  if (comparison.error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return std::string(" failed at ") + type + " products: " + cudaGetErrorString(comparison.error);
  }
  if (!comparison.taken) return std::string(" refused ") + type + " products";
  return comparison.equal ? "" : std::string(" gave wrong ") + type + " products";
}

}  // namespace

MatrixLibrary::MatrixLibrary(cudaStream_t stream) : products_(std::make_unique<Products>()) {
  const auto start = [&](const auto& task, cudaStream_t on) { return products_->start(task, on); };
  std::string problem = products_->open();
  if (problem.empty()) {
    std::string failure = problem_of(compare<MatrixProductF32>(start, stream), "float32");
    if (failure.empty()) failure = problem_of(compare<MatrixProductNarrow<bfloat16>>(start, stream), "bfloat16");
    if (failure.empty()) failure = problem_of(compare<MatrixProductNarrow<float16>>(start, stream), "float16");
    if (!failure.empty()) problem = "cuBLASLt " + products_->version() + failure;
  }
  description_ = problem.empty() ? "cuBLASLt " + products_->version() : "own kernels (" + problem + ")";
  if (!problem.empty()) products_.reset();
}

MatrixLibrary::~MatrixLibrary() = default;

template <class Task>
cudaError_t MatrixLibrary::multiply_either_way(const Task& task, cudaStream_t stream) {
  if (products_ != nullptr && products_->start(task, stream)) return cudaSuccess;
  return own_product(task, stream);
}

cudaError_t MatrixLibrary::multiply(const MatrixProductF32& task, cudaStream_t stream) { return multiply_either_way(task, stream); }

cudaError_t MatrixLibrary::multiply(const MatrixProductNarrow<bfloat16>& task, cudaStream_t stream) {
  return multiply_either_way(task, stream);
}

cudaError_t MatrixLibrary::multiply(const MatrixProductNarrow<float16>& task, cudaStream_t stream) {
  return multiply_either_way(task, stream);
}

}  // namespace secateur::gpu
