// Kernels as nvcc compiled them, run in place of those compiled for the host.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "cuda_on_host.h"
#include "ptx/interpreter.h"

namespace secateur::test {

class CompiledKernels {
 public:
  // Reads all modules of a folder. Throws naming the file and line of what the interpreter does not know.
  explicit CompiledKernels(const std::string& folder);

  // Throws naming the kernel when no module has it. counts_traffic: what it asks of memory is counted.
  const ptx::Kernel& find(const cuda_on_host::Launch& launch, bool counts_traffic);
  // Kernels that nothing has asked for, and those whose traffic nothing has counted; demangled.
  std::vector<std::string> unused() const { return others_than(used_); }
  std::vector<std::string> uncounted() const { return others_than(counted_); }
  // Of every kernel, `file/kernel` as kernel-budgets.json has it: the most dynamic shared memory that a launch asked for, in bytes.
  std::map<std::string, std::size_t> launched_shared_bytes() const;

 private:
  struct Compiled {
    ptx::Kernel kernel;
    // Its source without the ending.
    std::string file;
    std::size_t launched_shared_bytes = 0;
  };

  std::vector<std::string> others_than(const std::set<std::string>& names) const;

  // By demangled name.
  std::map<std::string, Compiled> kernels_;
  std::set<std::string> used_;
  std::set<std::string> counted_;
};

// Those that this program was started with.
CompiledKernels& compiled_kernels();
void set_compiled_kernels(CompiledKernels& kernels);

// Runs the compiled kernel alone; counts what memory it touches when `traffic` is given.
cudaError_t run_compiled(CompiledKernels& kernels, const cuda_on_host::Launch& launch, ptx::Traffic* traffic = nullptr);
// Runs the kernel on the host and as compiled, from the same memory, and fails where they leave other bytes behind.
cudaError_t run_both(CompiledKernels& kernels, const cuda_on_host::Launch& launch, const std::function<cudaError_t()>& run_on_host);

}  // namespace secateur::test
