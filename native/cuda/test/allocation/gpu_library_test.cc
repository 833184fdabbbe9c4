// Opens the built CUDA library the way the engine does: it must load and say what it sees, with or without a driver.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "cuda/library.h"

namespace secateur::test {
namespace {

template <class Function>
Function* symbol(void* library, const char* name) {
  void* const address = dlsym(library, name);
  REQUIRE_MESSAGE(address != nullptr, name);
  return reinterpret_cast<Function*>(address);
}

}  // namespace

TEST_CASE("the CUDA library loads and gives its reason") {
  const std::unique_ptr<void, int (*)(void*)> library(dlopen(SECATEUR_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL), dlclose);
  REQUIRE_MESSAGE(library != nullptr, dlerror());
  CHECK(symbol<decltype(secateur_cuda_abi_version)>(library.get(), "secateur_cuda_abi_version")() == SECATEUR_CUDA_ABI_VERSION);
  symbol<decltype(secateur_cuda_column_sums_of_squares)>(library.get(), "secateur_cuda_column_sums_of_squares");
  symbol<decltype(secateur_cuda_quality_curves)>(library.get(), "secateur_cuda_quality_curves");

  char reason[256] = "";
  const auto query = symbol<decltype(secateur_cuda_query_devices)>(library.get(), "secateur_cuda_query_devices");
  const int devices = query(reason, sizeof reason);
  MESSAGE(devices << " devices: " << std::string(reason));
  REQUIRE(devices >= 0);
  if (devices == 0) {
    const bool names_the_driver = std::string(reason).find("driver") != std::string::npos;
    CHECK(names_the_driver);
    const auto sums = symbol<decltype(secateur_cuda_column_sums_of_squares)>(library.get(), "secateur_cuda_column_sums_of_squares");
    const auto text = symbol<decltype(secateur_cuda_error_text)>(library.get(), "secateur_cuda_error_text");
    const int error = sums(nullptr, 1, 1, nullptr, nullptr);
    CHECK(error != 0);
    CHECK(std::string(text(error)) != "");
  } else {
    CHECK(std::string(reason).find("compute capability") != std::string::npos);
  }
  char cut[4] = "";
  query(cut, sizeof cut);
  CHECK(std::string(cut).size() == 3);
}

}  // namespace secateur::test
