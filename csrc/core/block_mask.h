// A block mask as kernels see it: which key blocks each query block visits, and a bit matrix for those it visits in part.
//
// Rows are (batch, head, query block); batch and head may be broadcast (stride 0). Columns of a row are ascending. A column's tile is -1
// when every pair of the block is visible, else the index of its bit matrix; equal matrices are stored once.
// Bit matrix layout: block_kv rows of block_q bits, least significant bit first, so a CPU kernel with queries in lanes reads the lane mask
// of one key as block_q/8 consecutive bytes. block_q is a multiple of 16.
// Edges: a block at the edge counts as full when all its pairs inside the lengths are visible, and bits beyond the lengths may be set (a
// prefix or slice of a longer mask shares its matrices), so kernels clip to min(tensor length, q_length or kv_length) as they clip to the
// tensor anyway. A tensor may be shorter than the mask: the mask's prefix applies.
#pragma once

#include <cstdint>

namespace fovea {

struct BlockMaskView {
  int32_t block_q, block_kv;
  int32_t q_blocks, kv_blocks;
  int64_t q_length, kv_length;        // lengths the mask was built for; positions beyond are masked
  int32_t batch_stride, head_stride;  // in rows of row_begin; 0 = broadcast
  const int32_t* row_begin;           // [rows + 1] into columns
  const int32_t* columns;             // key block of each entry
  const int32_t* tiles;               // bit matrix of each entry, -1 = full
  const uint8_t* bits;                // [tile][block_kv][block_q / 8]
  // The same entries by key block (backward, and whoever owns keys), query blocks ascending.
  const int32_t* column_begin;  // [row sets * kv_blocks + 1]; row set (b * batch_stride + h * head_stride) / q_blocks
  const int32_t* rows;
  const int32_t* row_tiles;

  int64_t tile_bytes() const { return static_cast<int64_t>(block_kv) * (block_q / 8); }
};

}  // namespace fovea
