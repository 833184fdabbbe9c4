// Executes kernels of a PTX module. Every CUDA thread has its own place in the code; barriers and warp operations are meetings of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "module.h"
#include "traffic.h"

namespace secateur::ptx {

struct Extent {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;

  std::size_t count() const { return std::size_t{x} * y * z; }
};

struct Launch {
  Extent grid;
  Extent block;
  std::size_t dynamic_shared_bytes = 0;
  // Of each parameter, as the kernel declares them.
  std::vector<std::vector<std::byte>> parameters;
  // What global addresses may be.
  std::vector<std::span<std::byte>> memory;
};

// Runs all blocks, one after the other, and returns when the last thread is through. Counts what memory it touches when `traffic` is given.
// Throws std::runtime_error naming the line: an access outside of `memory` or of shared memory, a misaligned one, a division by zero, a
// barrier or warp operation that cannot be completed, lanes outside of a mask.
void execute(const Kernel& kernel, const Launch& launch, Traffic* traffic = nullptr);

}  // namespace secateur::ptx
