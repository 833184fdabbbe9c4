// What the repairs of a workload make every backend hold.
#pragma once

#include <cstdint>
#include <vector>

#include "common/product_layout.h"
#include "secateur/backend.h"

namespace secateur {

// Gram matrices of an input: with swaps, one of the samples that are held out too.
std::uint64_t gram_matrices(const Workload& workload);

// Sites whose Gram matrices are summed up at a time: of a block that is pruned in stages one, otherwise all.
std::vector<InputSites> gram_passes(const Workload& workload);

// Of the Gram matrices, and the drift, that the repair of a projection works from.
std::uint64_t repair_input_bytes(const Workload& workload, const TensorLayout& projection);
// Of the largest of them.
ProductShape repair_input_shape(const Workload& workload, const TensorLayout& projection);

}  // namespace secateur
