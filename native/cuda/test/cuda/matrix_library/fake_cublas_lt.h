// A library with the interface of cuBLASLt for tests of who calls it. It checks what it is told, hands products to the test and misbehaves
// on request.
#pragma once

#include <cstddef>
#include <cstdint>

namespace secateur::test {

// In columns first, as cuBLASLt sees it: result[rows, columns] = left[inner, rows]ᵀ · right[inner, columns] + bias[rows].
struct FakeProduct {
  int element_type;
  std::size_t rows;
  std::size_t columns;
  std::size_t inner;
  const void* left;
  const void* right;
  const float* bias;
  float* result;
};

struct FakeCublasLt {
  std::size_t version = 130102;
  int create_status = 0;
  // Element type that no algorithm is found for.
  int refused_type = -1;
  int multiply_status = 0;
  void (*multiply)(const FakeProduct& product) = nullptr;
  int searches = 0;
  // Created and not destroyed.
  int objects = 0;
};

// Of the loaded library, by dlsym under this name.
inline constexpr const char* kFakeCublasLt = "fake_cublas_lt";
using FakeCublasLtFunction = FakeCublasLt* (*)();

}  // namespace secateur::test
