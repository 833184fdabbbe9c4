#include "compiled_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>

#include "function_names.h"

namespace secateur::test {
namespace {

using Memory = std::vector<std::vector<std::byte>>;

Memory snapshot() {
  Memory copies;
  for (const std::span<std::byte> range : cuda_on_host::reachable_memory()) copies.emplace_back(range.begin(), range.end());
  return copies;
}

void restore(const Memory& copies) {
  const std::vector<std::span<std::byte>> memory = cuda_on_host::reachable_memory();
  for (std::size_t i = 0; i < memory.size(); ++i) std::ranges::copy(copies[i], memory[i].begin());
}

// Kernels that use an exponential: the processor's library and libdevice, which nvcc links in, round it differently.
bool is_exact(const std::string& kernel) {
  constexpr std::array kWithExponential = {"attend_kernel", "attend_narrow_kernel",
                                           "combine_kernel<secateur::gpu::(anonymous namespace)::SiluMultiply>", "accumulate_kernel"};
  return std::ranges::none_of(kWithExponential, [&](const char* name) { return kernel.find(name) != std::string::npos; });
}

// Whether both are the same values but for rounding, as float32 or as float64.
template <class Real>
bool is_close(const std::byte* a, const std::byte* b) {
  Real x;
  Real y;
  std::memcpy(&x, a, sizeof x);
  std::memcpy(&y, b, sizeof y);
  if (std::memcmp(&x, &y, sizeof x) == 0 || (std::isnan(x) && std::isnan(y))) return true;
  // Of float32, through a few hundred sums.
  constexpr Real kTolerance = 64 * static_cast<Real>(std::numeric_limits<float>::epsilon());
  return std::abs(x - y) <= kTolerance * std::max({std::abs(x), std::abs(y), Real{1e-2F}});
}

// The first byte that differs, or the size.
std::size_t first_difference(std::span<const std::byte> a, std::span<const std::byte> b, bool exact) {
  if (exact) return static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    const std::size_t single = i / sizeof(float) * sizeof(float);
    const std::size_t wide = i / sizeof(double) * sizeof(double);
    const bool close = (single + sizeof(float) <= a.size() && is_close<float>(&a[single], &b[single])) ||
                       (wide + sizeof(double) <= a.size() && is_close<double>(&a[wide], &b[wide]));
    if (!close) return i;
  }
  return a.size();
}

ptx::Launch as_ptx(const cuda_on_host::Launch& launch) {
  const auto extent = [](dim3 size) { return ptx::Extent{size.x, size.y, size.z}; };
  return {.grid = extent(launch.grid),
          .block = extent(launch.block),
          .dynamic_shared_bytes = launch.shared_bytes,
          .parameters = launch.parameters,
          .memory = cuda_on_host::reachable_memory()};
}

CompiledKernels* chosen_kernels = nullptr;

}  // namespace

CompiledKernels& compiled_kernels() { return *chosen_kernels; }
void set_compiled_kernels(CompiledKernels& kernels) { chosen_kernels = &kernels; }

CompiledKernels::CompiledKernels(const std::string& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".ptx") continue;
    std::ifstream file(entry.path());
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    try {
      for (ptx::Kernel& kernel : ptx::parse_module(text)) {
        const std::string name = demangled(kernel.name);
        Compiled compiled{.kernel = std::move(kernel), .file = entry.path().stem().string()};
        if (!kernels_.emplace(name, std::move(compiled)).second) throw std::runtime_error("two kernels are called " + name);
      }
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(entry.path().filename().string() + ": " + error.what());
    }
  }
  if (kernels_.empty()) throw std::runtime_error("no .ptx file in " + folder);
}

const ptx::Kernel& CompiledKernels::find(const cuda_on_host::Launch& launch, bool counts_traffic) {
  const std::string name = function_name(launch.kernel);
  const auto found = kernels_.find(name);
  if (found == kernels_.end()) throw std::runtime_error("no module has the kernel " + name);
  used_.insert(name);
  if (counts_traffic) counted_.insert(name);
  std::size_t& most = found->second.launched_shared_bytes;
  most = std::max(most, launch.shared_bytes);
  return found->second.kernel;
}

std::map<std::string, std::size_t> CompiledKernels::launched_shared_bytes() const {
  std::map<std::string, std::size_t> bytes;
  for (const auto& [name, compiled] : kernels_) bytes.emplace(compiled.file + '/' + short_name(name), compiled.launched_shared_bytes);
  return bytes;
}

std::vector<std::string> CompiledKernels::others_than(const std::set<std::string>& names) const {
  std::vector<std::string> others;
  for (const auto& [name, kernel] : kernels_) {
    if (!names.contains(name)) others.push_back(name);
  }
  return others;
}

cudaError_t run_compiled(CompiledKernels& kernels, const cuda_on_host::Launch& launch, ptx::Traffic* traffic) {
  try {
    ptx::execute(kernels.find(launch, traffic != nullptr), as_ptx(launch), traffic);
    return cudaSuccess;
  } catch (const std::runtime_error& error) {
    std::fprintf(stderr, "PTX: %s\n", error.what());
    return cudaErrorLaunchFailure;
  }
}

cudaError_t run_both(CompiledKernels& kernels, const cuda_on_host::Launch& launch, const std::function<cudaError_t()>& run_on_host) {
  const Memory before = snapshot();
  if (const cudaError_t error = run_on_host(); error != cudaSuccess) return error;
  const Memory expected = snapshot();
  restore(before);
  if (const cudaError_t error = run_compiled(kernels, launch); error != cudaSuccess) return error;
  const Memory found = snapshot();
  const std::string name = function_name(launch.kernel);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::size_t place = first_difference(expected[i], found[i], is_exact(name));
    if (place == found[i].size()) continue;
    std::fprintf(stderr, "PTX: %s leaves other bytes than on the host, from byte %zu of %zu of the %zu. memory on\n", name.c_str(), place,
                 found[i].size(), i + 1);
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

}  // namespace secateur::test
