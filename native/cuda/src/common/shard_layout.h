// Which tensors shards have, and of what shapes: the same for every backend.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/product_layout.h"
#include "secateur/backend.h"

namespace secateur {

enum class ShardKind { kEmbedding, kBlock, kHead };

// "an embedding", for messages.
const char* name_of(ShardKind kind);

// The kind follows from the roles. Throws InvalidArgument naming the tensor that is missing, doubled or of the wrong shape.
ShardKind check_layout(const std::string& name, std::span<const TensorLayout> tensors, const Architecture& architecture);
// The same for a shard with its values; also throws when a tensor has too few or too many bytes.
ShardKind check_shard(const std::string& name, std::span<const TensorView> tensors, const Architecture& architecture);

// Whether activations are multiplied with it: projections of a block, and the head's weight.
bool is_multiplied(TensorRole role);

std::size_t elements_of(const TensorLayout& tensor);
// Of the inputs of a site.
std::size_t input_width(const Architecture& architecture, InputSite site);
// Of Σ (x' - x)xᵀ and, under it, Σ (r' - r)xᵀ where what reads the inputs x of a site is added to hidden states r.
ProductShape drift_shape(const Architecture& architecture, InputSite site);

// Throws InvalidArgument when the architecture or a shard of the workload contradicts itself or the other.
void check_workload(const Workload& workload, const Architecture& architecture);

// Throws InvalidArgument when there are more than fit an answer.
void check_sketches(std::size_t sketches);

// Throws InvalidArgument naming the field that contradicts the others or is out of range.
void check_architecture(const Architecture& architecture);

// Throws InvalidArgument when the ids are not samples x sequence_length tokens of the vocabulary, or too many for the positions.
void check_tokens(const GroupTokens& tokens, const Architecture& architecture);

// Throws InvalidArgument when the saved hidden states of a group are not as large as its tokens take.
void check_saved_bytes(std::uint32_t group, std::size_t given, std::uint64_t expected);

// The ranges of a group's samples whose loss is measured: those given, or all tokens but the first of each sample where none are given.
// Throws InvalidArgument unless there is one for each sample that holds at least one token, and not the first, which nothing predicts.
std::vector<TokenRange> measured_ranges(const GroupTokens& tokens, std::span<const TokenRange> ranges);

// Throws InvalidArgument when there is none.
void check_sites(InputSites sites);

// Throws InvalidArgument when a projection's mask has another size than its shape asks for.
void check_mask(TensorRole projection, std::size_t rows, std::size_t columns, std::size_t mask_bytes);

}  // namespace secateur
