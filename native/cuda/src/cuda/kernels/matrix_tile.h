// What the kernels of matrix products share: which tile of the result a block computes, and strips of the operands in shared memory.
#pragma once

#include "cuda/tensor_core.h"

namespace secateur::gpu {

// Square tiles that cover a result.
inline std::size_t tile_count(std::size_t rows, std::size_t columns, std::size_t tile) {
  return (rows + tile - 1) / tile * ((columns + tile - 1) / tile);
}

inline constexpr unsigned kLargeTile = 128;
inline constexpr unsigned kSmallTile = 64;

// Large tiles do more with what they read, but few of them would leave most of a device idle.
inline bool fills_with_large_tiles(std::size_t rows, std::size_t columns) {
  constexpr std::size_t kEnoughTiles = 128;
  return tile_count(rows, columns, kLargeTile) >= kEnoughTiles;
}

struct TilePosition {
  std::size_t row;
  std::size_t column;
};

// Tile of this block. Blocks that run together take tiles near one another, so that they find each other's operands in the cache.
__device__ inline TilePosition tile_of_block(std::size_t row_tiles, std::size_t column_tiles) {
  constexpr std::size_t kBandRows = 16;
  const std::size_t band = blockIdx.x / (kBandRows * column_tiles);
  const std::size_t within = blockIdx.x % (kBandRows * column_tiles);
  const std::size_t first_row = band * kBandRows;
  const std::size_t band_rows = row_tiles - first_row < kBandRows ? row_tiles - first_row : kBandRows;
  return {first_row + within % band_rows, within / band_rows};
}

// The rows of an operand [.., inner] that a block reads.
template <class Element>
struct OperandRows {
  const Element* values;
  std::size_t inner;
  // At most those of a tile.
  unsigned count;
  // Every row begins at a multiple of 16 bytes.
  bool aligned;
};

template <class Element>
__device__ inline OperandRows<Element> rows_of(const Element* operand, std::size_t rows, std::size_t inner, std::size_t first_row,
                                               unsigned tile) {
  const std::size_t beyond = rows - first_row;
  return {operand + first_row * inner, inner, beyond < tile ? static_cast<unsigned>(beyond) : tile,
          reinterpret_cast<std::uintptr_t>(operand) % 16 == 0 && inner * sizeof(Element) % 16 == 0};
}

// A strip in shared memory: rows of 64 bytes along the inner dimension, four pieces of 16 bytes each.
inline constexpr unsigned kRowPieces = 4;
template <class Element>
inline constexpr unsigned kPieceElements = 16 / sizeof(Element);
template <class Element>
inline constexpr unsigned kStripInner = kRowPieces* kPieceElements<Element>;

// Where a piece lies, in pieces. Eight neighbouring rows that read the same piece touch all banks once. Rows that are a multiple of
// kSwizzleRows apart have the same order of pieces, so that their places differ by a constant.
inline constexpr unsigned kSwizzleRows = 8;
__device__ inline unsigned place_of_piece(unsigned row, unsigned piece) { return row * kRowPieces + (piece ^ (row / 2 % kRowPieces)); }

// Starts filling a strip of `Rows` rows from the operand's columns first_inner and following, with zeros beyond its edges; all `Threads`
// threads of the block take part.
template <unsigned Rows, unsigned Threads, class Element>
__device__ inline void copy_strip(Element* strip, const OperandRows<Element>& operand, std::size_t first_inner) {
  constexpr unsigned kPiece = kPieceElements<Element>;
  static_assert(Rows * kRowPieces % Threads == 0, "threads take as many pieces");
  constexpr unsigned kRoundRows = Threads / kRowPieces;
  static_assert(kRoundRows % kSwizzleRows == 0, "rows of a thread have the same order of pieces");
  const unsigned first_row = threadIdx.x / kRowPieces;
  const unsigned piece = threadIdx.x % kRowPieces;
  const std::size_t begin = first_inner + piece * kPiece;
  const std::size_t beyond = begin < operand.inner ? operand.inner - begin : 0;
  const unsigned inside = beyond < kPiece ? static_cast<unsigned>(beyond) : kPiece;
  Element* const first_target = strip + place_of_piece(first_row, piece) * kPiece;
#pragma unroll
  for (unsigned round = 0; round < Rows / kRoundRows; ++round) {
    const unsigned row = first_row + round * kRoundRows;
    Element* const target = first_target + round * kRoundRows * kStripInner<Element>;
    const unsigned count = row < operand.count ? inside : 0;
    const Element* const source = count == 0 ? operand.values : operand.values + row * operand.inner + begin;
    if (operand.aligned) {
      copy_async_16(target, source, count * static_cast<unsigned>(sizeof(Element)));
    } else {
#pragma unroll 1
      for (unsigned i = 0; i < kPiece; ++i) target[i] = i < count ? source[i] : Element{};
    }
  }
}

}  // namespace secateur::gpu
