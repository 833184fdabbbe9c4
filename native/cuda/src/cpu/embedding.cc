#include "cpu/embedding.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "cpu/element_type.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kTokenTile = 256;

// Per thread: floats for the hidden states of a tile and for the rows they are projected from, bytes for the copies that the product reads.
struct EmbeddingSizes {
  std::size_t tile_tokens;
  std::size_t rows;
  std::size_t copies;

  EmbeddingSizes(const Architecture& architecture, std::span<const ProjectionForm> projections, std::size_t sequence_length)
      : tile_tokens(std::min(kTokenTile, sequence_length)),
        rows(tile_tokens * (architecture.hidden_size + architecture.embedding_size)),
        copies(ProjectionWorkspace::bytes(projections, tile_tokens)) {}
};

}  // namespace

std::uint64_t embedding_work_bytes(const Architecture& architecture, std::span<const ProjectionForm> projections,
                                   std::size_t sequence_length, std::size_t threads) {
  const EmbeddingSizes sizes(architecture, projections, sequence_length);
  return threads * (sizes.rows * sizeof(float) + sizes.copies);
}

void embed_tokens(const Architecture& architecture, const Shard& embedding, const GroupTokens& tokens, StateBuffer& states,
                  MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  const std::size_t hidden = architecture.hidden_size;
  const std::size_t width = architecture.token_width();
  const std::size_t length = tokens.sequence_length;
  const TokenTable& table = embedding.token_table();
  const std::size_t row_bytes = width * bytes_of(table.element_type);
  const float* const positions = embedding.find(TensorRole::kPositionEmbedding);
  const Projection* const projection =
      architecture.embedding_size == 0 ? nullptr : &embedding.projection(TensorRole::kEmbeddingProjectionWeight);
  std::vector<ProjectionForm> forms;
  if (projection != nullptr) forms.push_back(projection->form());
  const EmbeddingSizes sizes(architecture, forms, length);
  Buffer<float> rows(budget, pool.size() * sizes.rows, "the embedding of a group");
  Buffer<std::uint8_t> copies(budget, pool.size() * sizes.copies, "the embedding of a group");
  const std::size_t tiles = (length + sizes.tile_tokens - 1) / sizes.tile_tokens;
  pool.parallel_for(tokens.samples * tiles, [&](std::size_t item, std::size_t worker) {
    context.check();
    const std::size_t position = item % tiles * sizes.tile_tokens;
    const std::size_t count = std::min(sizes.tile_tokens, length - position);
    const std::size_t first = item / tiles * length + position;
    float* const result = rows.data() + worker * sizes.rows;
    float* const looked_up = projection == nullptr ? result : result + sizes.tile_tokens * hidden;
    {
      const PhaseScope scope(context, "embed", 0, static_cast<double>(count * (row_bytes + width * sizeof(float))));
      for (std::size_t token = 0; token < count; ++token) {
        const auto id = static_cast<std::size_t>(tokens.ids[first + token]);
        widen(table.element_type, table.bytes.data() + id * row_bytes, width, looked_up + token * width);
      }
    }
    if (projection != nullptr) {
      const ProjectionWorkspace workspace(copies.data() + worker * sizes.copies, forms, sizes.tile_tokens);
      projection->multiply(workspace.prepare(looked_up, count, width, {projection}), nullptr, workspace, result, context);
    }
    if (positions != nullptr) {
      vector_math().add(result, positions + (position + architecture.learned_position_offset) * hidden, count * hidden);
    }
    states.write(first * hidden, count * hidden, result);
  });
}

}  // namespace secateur::cpu
