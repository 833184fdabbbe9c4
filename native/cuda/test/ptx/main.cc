// The tests of the kernels on PTX. usage: secateur_ptx_test compiled|unfused [--every-kernel] [options of doctest]
// compiled: kernels as the library has them, against the tests' references. unfused: against the kernels on the host, bit by bit.
// --every-kernel: fails when no test runs one of them, or none counts what it asks of memory.
#include <doctest/doctest.h>

#include <cstdio>
#include <string>

#include "compiled_kernels.h"

int main(int argc, char** argv) {
  using namespace secateur;
  const std::string variant = argc > 1 ? argv[1] : "";
  if (variant != "compiled" && variant != "unfused") {
    std::fprintf(stderr, "usage: %s compiled|unfused [--every-kernel] [options of doctest]\n", argv[0]);
    return 2;
  }
  test::CompiledKernels kernels(std::string(SECATEUR_PTX_FOLDER) + "/" + variant);
  test::set_compiled_kernels(kernels);
  cuda_on_host::set_launch_hook([&](const cuda_on_host::Launch& launch, const std::function<cudaError_t()>& run_on_host) {
    return variant == "unfused" ? test::run_both(kernels, launch, run_on_host) : test::run_compiled(kernels, launch);
  });
  doctest::Context context(argc - 1, argv + 1);
  const int result = context.run();
  cuda_on_host::set_launch_hook(nullptr);
  const bool every_kernel = argc > 2 && std::string(argv[2]) == "--every-kernel";
  if (result != 0 || !every_kernel) return result;
  for (const std::string& name : kernels.unused()) std::fprintf(stderr, "No test runs %s.\n", name.c_str());
  for (const std::string& name : kernels.uncounted()) std::fprintf(stderr, "No test counts the memory traffic of %s.\n", name.c_str());
  return kernels.unused().empty() && kernels.uncounted().empty() ? 0 : 1;
}
