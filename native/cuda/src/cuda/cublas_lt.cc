#include "cuda/cublas_lt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

namespace secateur::gpu {
namespace {

constexpr const char* kFiles[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
constexpr std::size_t kOldestMajor = 12;
constexpr std::size_t kNewestMajor = 13;

// Ending in a slash; empty where the loader decides.
std::vector<std::string> folders() {
  if (const char* const chosen = std::getenv("SECATEUR_CUBLAS_DIR")) return {std::string(chosen) + "/"};
#if defined(CUDART_VERSION)
  std::vector<std::string> found{""};
  if (const char* const home = std::getenv("CUDA_HOME")) found.push_back(std::string(home) + "/lib64/");
  Dl_info here{};
  if (dladdr(reinterpret_cast<const void*>(&load_cublas_lt), &here) != 0 && here.dli_fname != nullptr) {
    const std::string path = here.dli_fname;
    found.push_back(path.substr(0, path.rfind('/') + 1));
  }
  return found;
#else
  // An installed cuBLASLt cannot work on emulated memory.
  return {};
#endif
}

// Null and why.
void* open_library(std::string& problem) {
  problem = "no libcublasLt.so.13 or .12 found";
  for (const std::string& folder : folders()) {
    for (const char* const file : kFiles) {
      if (void* const library = dlopen((folder + file).c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
      const std::string error = dlerror();
      // Telling only about a library that is there and does not load.
      if (error.find("No such file") == std::string::npos) problem = error;
    }
  }
  return nullptr;
}

template <class Function>
void find(void* library, const char* name, Function& function, std::string& problem) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr && problem.empty()) problem = std::string("cuBLASLt has no ") + name;
}

}  // namespace

std::string load_cublas_lt(CublasLt& functions) {
  std::string problem;
  void* const library = open_library(problem);
  if (library == nullptr) return problem;
  problem.clear();
  std::size_t (*version)() = nullptr;
  find(library, "cublasLtGetVersion", version, problem);
  find(library, "cublasLtCreate", functions.create, problem);
  find(library, "cublasLtDestroy", functions.destroy, problem);
  find(library, "cublasLtMatmulDescCreate", functions.create_description, problem);
  find(library, "cublasLtMatmulDescDestroy", functions.destroy_description, problem);
  find(library, "cublasLtMatmulDescSetAttribute", functions.set_description, problem);
  find(library, "cublasLtMatrixLayoutCreate", functions.create_layout, problem);
  find(library, "cublasLtMatrixLayoutDestroy", functions.destroy_layout, problem);
  find(library, "cublasLtMatmulPreferenceCreate", functions.create_preference, problem);
  find(library, "cublasLtMatmulPreferenceDestroy", functions.destroy_preference, problem);
  find(library, "cublasLtMatmulPreferenceSetAttribute", functions.set_preference, problem);
  find(library, "cublasLtMatmulAlgoGetHeuristic", functions.find_algorithms, problem);
  find(library, "cublasLtMatmul", functions.multiply, problem);
  if (!problem.empty()) return problem;

  const std::size_t number = version();
  const std::size_t major = number / 10000;
  functions.version = std::to_string(major) + "." + std::to_string(number / 100 % 100) + "." + std::to_string(number % 100);
  if (major < kOldestMajor || major > kNewestMajor) return "cuBLASLt " + functions.version + " is not 12 or 13";
  return {};
}

}  // namespace secateur::gpu
