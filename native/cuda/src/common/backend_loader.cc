#include "common/backend_loader.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "secateur/backend_library.h"

namespace secateur {

namespace {

constexpr std::size_t kReasonBytes = 512;

std::filesystem::path library_path() {
  const char* const named = std::getenv("SECATEUR_CUDA_LIBRARY");
  if (named != nullptr && *named != '\0') return named;
  Dl_info here{};
  if (dladdr(reinterpret_cast<const void*>(&load_cuda_backend), &here) == 0 || here.dli_fname == nullptr) return "libsecateur_cuda.so";
  return std::filesystem::path(here.dli_fname).parent_path() / "libsecateur_cuda.so";
}

template <class Function>
Function* find(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

struct BackendLibrary {
  decltype(secateur_backend_query)* query = nullptr;
  decltype(secateur_backend_create)* create = nullptr;
  // Why there are none.
  std::string problem;
};

BackendLibrary open_library() {
  const std::filesystem::path path = library_path();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return {nullptr, nullptr, "this build has no CUDA library (" + path.filename().string() + "; it is built where nvcc is found)"};
  }
  // Never closed: its code may be on the stack of any thread until the process ends.
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return {nullptr, nullptr, "the CUDA library cannot be loaded: " + std::string(dlerror())};
  const auto mark = find<decltype(secateur_backend_mark)>(library, "secateur_backend_mark");
  if (mark == nullptr || std::string_view(mark()) != SECATEUR_BACKEND_MARK) {
    return {nullptr, nullptr, path.string() + " is of another version; build the engine and it together"};
  }
  const auto query = find<decltype(secateur_backend_query)>(library, "secateur_backend_query");
  const auto create = find<decltype(secateur_backend_create)>(library, "secateur_backend_create");
  if (query == nullptr || create == nullptr) return {nullptr, nullptr, path.string() + " lacks the functions of a backend"};
  return {query, create, ""};
}

}  // namespace

int count_cuda_devices() {
  const BackendLibrary library = open_library();
  if (!library.problem.empty()) return 0;
  std::string reason(kReasonBytes, '\0');
  return library.query(reason.data(), reason.size());
}

LoadedBackend load_cuda_backend(std::uint64_t memory_budget_bytes, std::size_t threads, const Placement& placement) {
  const BackendLibrary library = open_library();
  if (!library.problem.empty()) return {nullptr, library.problem};
  std::string reason(kReasonBytes, '\0');
  const int devices = library.query(reason.data(), reason.size());
  if (devices == 0) return {nullptr, reason.c_str()};
  std::unique_ptr<Backend> backend(library.create(memory_budget_bytes, threads, placement, reason.data(), reason.size()));
  return {std::move(backend), reason.c_str()};
}

}  // namespace secateur
