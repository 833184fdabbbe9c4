// The tests of the kernels on PTX. usage: secateur_ptx_test compiled|unfused [--every-kernel] [options of doctest]
// compiled: kernels as the library has them, against the tests' references. unfused: against the kernels on the host, bit by bit.
// --every-kernel: fails when no test runs one of them, or none counts what it asks of memory, or launches ask for another amount of shared
// memory than its budget says.
#include <doctest/doctest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "compiled_kernels.h"
#include "shared_memory_budgets.h"

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
  std::vector<std::string> findings = test::unlike_budgets(SECATEUR_KERNEL_BUDGETS, kernels.launched_shared_bytes());
  for (const std::string& name : kernels.unused()) findings.push_back("No test runs " + name + ".");
  for (const std::string& name : kernels.uncounted()) findings.push_back("No test counts the memory traffic of " + name + ".");
  for (const std::string& finding : findings) std::fprintf(stderr, "%s\n", finding.c_str());
  return findings.empty() ? 0 : 1;
}
