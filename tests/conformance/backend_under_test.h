// The backend that this run of the suite is about: --backend=cpu (the default) or --backend=cuda, whose library SECATEUR_CUDA_LIBRARY
// names; that may be the one emulated on the host.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "secateur/backend.h"

namespace secateur::test {

void choose_backend(const std::string& name);
bool is_cpu();
// Whether that is the CUDA backend without a GPU, which takes its time.
bool is_emulated();
std::unique_ptr<Backend> open_backend(std::size_t threads, std::uint64_t memory_budget_bytes);
// Empty when sessions can compute so.
std::string why_no(Compute compute);

}  // namespace secateur::test
