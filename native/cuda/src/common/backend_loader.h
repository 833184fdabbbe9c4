// Opens the CUDA backend's shared library at run time, so that nothing of CUDA is needed where there is no GPU.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "secateur/backend.h"

namespace secateur {

struct LoadedBackend {
  // Null when the backend cannot be used.
  std::unique_ptr<Backend> backend;
  // Which device it has, or why it cannot be used; for people.
  std::string reason;
};

// The library is the file that the environment variable SECATEUR_CUDA_LIBRARY names, else libsecateur_cuda.so beside this code.
// Threads are for what it computes on the host, as those of create_cpu_backend.
LoadedBackend load_cuda_backend(std::uint64_t memory_budget_bytes, std::size_t threads, const Placement& placement = {});

// Devices that the CUDA backend would find; 0 where it cannot be used. Takes no memory of any.
int count_cuda_devices();

}  // namespace secateur
