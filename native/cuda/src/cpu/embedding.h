// Hidden states of tokens, from a model's embedding.
#pragma once

#include <cstdint>
#include <span>

#include "cpu/projection.h"
#include "cpu/shard.h"
#include "cpu/state_buffer.h"
#include "secateur/backend.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// states [samples, sequence_length, hidden]: rows of the token table, projected where they are narrower, plus those of their positions
// where these are learned.
void embed_tokens(const Architecture& architecture, const Shard& embedding, const GroupTokens& tokens, StateBuffer& states,
                  MemoryBudget& budget, ThreadPool& pool, CallContext& context);

// Memory of that besides the embedding and the hidden states; `projections`: those of the embedding, one or none.
std::uint64_t embedding_work_bytes(const Architecture& architecture, std::span<const ProjectionForm> projections,
                                   std::size_t sequence_length, std::size_t threads);

}  // namespace secateur::cpu
