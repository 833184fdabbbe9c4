#include "fake_cublas_lt.h"

#include <cstring>
#include <memory>

// Numbers below are those of cublasLt.h.
namespace {

constexpr int kSuccess = 0;
constexpr int kInvalidValue = 7;
constexpr int kNotSupported = 15;

secateur::test::FakeCublasLt& fake() {
  static secateur::test::FakeCublasLt behaviour;
  return behaviour;
}

struct Description {
  int compute_type;
  int scale_type;
  std::int32_t left_transposed = 0;
  std::int32_t right_transposed = 0;
  std::uint32_t epilogue = 1;
  const float* bias = nullptr;
};

struct Layout {
  int type;
  std::uint64_t rows;
  std::uint64_t columns;
  std::int64_t stride;
};

struct Preference {
  std::uint64_t workspace_bytes = 0;
  std::uint32_t alignments[4] = {256, 256, 256, 256};
};

struct Heuristic {
  std::uint64_t algorithm[8];
  std::size_t workspace_bytes;
  int status;
  float waves;
  int reserved[4];
};

constexpr std::uint64_t kAlgorithm = 0x5eca7e42;

template <class Object>
int make(void** target, Object object) {
  *target = std::make_unique<Object>(object).release();
  ++fake().objects;
  return kSuccess;
}

template <class Object>
int destroy(void* object) {
  std::unique_ptr<Object>(static_cast<Object*>(object)).reset();
  --fake().objects;
  return kSuccess;
}

template <class Value>
int set(Value& target, const void* value, std::size_t bytes) {
  if (bytes != sizeof(Value)) return kInvalidValue;
  std::memcpy(&target, value, bytes);
  return kSuccess;
}

bool is_consistent(const Description& description, const Layout& left, const Layout& right, const Layout& result) {
  return description.compute_type == 68 && description.scale_type == 0 && description.left_transposed == 1 &&
         description.right_transposed == 0 && (description.epilogue == 1 || (description.epilogue == 4 && description.bias != nullptr)) &&
         left.type == right.type && result.type == 0 && left.rows == right.rows && left.columns == result.rows &&
         right.columns == result.columns && left.stride == static_cast<std::int64_t>(left.rows) &&
         right.stride == static_cast<std::int64_t>(right.rows) && result.stride == static_cast<std::int64_t>(result.rows);
}

}  // namespace

extern "C" {

secateur::test::FakeCublasLt* fake_cublas_lt() { return &fake(); }

std::size_t cublasLtGetVersion() { return fake().version; }

int cublasLtCreate(void** handle) { return fake().create_status == kSuccess ? make(handle, 0) : fake().create_status; }
int cublasLtDestroy(void* handle) { return destroy<int>(handle); }

int cublasLtMatmulDescCreate(void** description, int compute_type, int scale_type) {
  return make(description, Description{compute_type, scale_type});
}
int cublasLtMatmulDescDestroy(void* description) { return destroy<Description>(description); }
int cublasLtMatmulDescSetAttribute(void* description, int attribute, const void* value, std::size_t bytes) {
  auto& target = *static_cast<Description*>(description);
  if (attribute == 3) return set(target.left_transposed, value, bytes);
  if (attribute == 4) return set(target.right_transposed, value, bytes);
  if (attribute == 7) return set(target.epilogue, value, bytes);
  if (attribute == 8) return set(target.bias, value, bytes);
  return kInvalidValue;
}

int cublasLtMatrixLayoutCreate(void** layout, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t stride) {
  return make(layout, Layout{type, rows, columns, stride});
}
int cublasLtMatrixLayoutDestroy(void* layout) { return destroy<Layout>(layout); }

int cublasLtMatmulPreferenceCreate(void** preference) { return make(preference, Preference{}); }
int cublasLtMatmulPreferenceDestroy(void* preference) { return destroy<Preference>(preference); }
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, std::size_t bytes) {
  auto& target = *static_cast<Preference*>(preference);
  if (attribute == 1) return set(target.workspace_bytes, value, bytes);
  if (attribute >= 5 && attribute <= 8) return set(target.alignments[attribute - 5], value, bytes);
  return kInvalidValue;
}

// The algorithm remembers the alignments that it may rely on.
int cublasLtMatmulAlgoGetHeuristic(void*, void* description, void* left, void* right, void* addend, void* result, void* preference,
                                   int requested, void* found, int* found_count) {
  ++fake().searches;
  *found_count = 0;
  const auto& left_layout = *static_cast<Layout*>(left);
  if (requested != 1 || addend != result ||
      !is_consistent(*static_cast<Description*>(description), left_layout, *static_cast<Layout*>(right), *static_cast<Layout*>(result))) {
    return kInvalidValue;
  }
  if (left_layout.type == fake().refused_type) return kNotSupported;
  const auto& wishes = *static_cast<Preference*>(preference);
  Heuristic heuristic{};
  heuristic.algorithm[0] = kAlgorithm;
  heuristic.algorithm[1] = wishes.workspace_bytes;
  for (std::size_t i = 0; i < 4; ++i) heuristic.algorithm[2 + i] = wishes.alignments[i];
  std::memcpy(found, &heuristic, sizeof(heuristic));
  *found_count = 1;
  return kSuccess;
}

int cublasLtMatmul(void*, void* description, const float* alpha, const void* left, void* left_layout, const void* right, void* right_layout,
                   const float* beta, const void* addend, void* addend_layout, void* result, void* result_layout,
                   const std::uint64_t* algorithm, void* workspace, std::size_t workspace_bytes, void*) {
  if (fake().multiply_status != kSuccess) return fake().multiply_status;
  const auto& what = *static_cast<Description*>(description);
  const auto& rows = *static_cast<Layout*>(left_layout);
  const auto& columns = *static_cast<Layout*>(right_layout);
  const auto is_aligned = [&](const void* pointer, std::size_t index) {
    return reinterpret_cast<std::uintptr_t>(pointer) % algorithm[2 + index] == 0;
  };
  if (*alpha != 1 || *beta != 0 || addend != result || addend_layout != result_layout || algorithm[0] != kAlgorithm ||
      workspace == nullptr || workspace_bytes < algorithm[1] || !is_aligned(left, 0) || !is_aligned(right, 1) || !is_aligned(addend, 2) ||
      !is_aligned(result, 3) || !is_consistent(what, rows, columns, *static_cast<Layout*>(result_layout))) {
    return kInvalidValue;
  }
  fake().multiply({rows.type, rows.columns, columns.columns, rows.rows, left, right, what.epilogue == 4 ? what.bias : nullptr,
                   static_cast<float*>(result)});
  return kSuccess;
}

}  // extern "C"
