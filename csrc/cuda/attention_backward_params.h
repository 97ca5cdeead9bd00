// What the kernels of attention's gradients get, by value.
#pragma once

#include "cuda/attention_forward_params.h"

namespace fovea::cuda {

// Who sums which tile of the gradient of a bias: see cuda/attention_backward_bias_owner.cuh.
struct BiasGradient {
  float* to;                                         // [parts][count], or the gradient itself where parts is 1; strides of grads.dbias
  int64_t count;                                     // elements of a part
  int32_t parts;                                     // blocks that share an owner
  int32_t kv_tiles, q_tiles, heads;                  // owners, and as many batch entries as the grid gives
  int32_t each_sequences, each_heads, each_q_tiles;  // what an owner visits
  int32_t len_q, len_kv;                             // rows and columns of the bias that have a gradient
};

// The gradient of one table: exact sums (cuda/exact_sum.cuh), and the array they are rounded to, which notes what is not finite until then.
struct TableGradient {
  int64_t* words;
  uint32_t* special;
};

struct AttentionBackwardParams {
  AttentionForwardParams forward;  // q_tiles of the kernel's own query tile
  AttentionGrads grads;
  float* delta;             // [batch, heads_q, len_q]: dout . out - dlse of each query
  int64_t delta_sh;         // len_q
  int32_t kv_tiles;         // tiles along the keys of one head; see attention_tiles
  int32_t key_parts_shift;  // 2^this blocks share a tile of keys; dk and dv then have as many entries for each of the batch
  BiasGradient bias;
  TableGradient table;
};

// Element (b, h, i, d) of `to` becomes the sum over parts of from[b][part][h][i][d].
struct AttentionBackwardPartsParams {
  const float* from;
  AttentionTensor to;
  DType dtype;  // of `to`
  int64_t batch, heads, rows, dim;
  int64_t parts;
};

// The positions of lists of rows, sorted by the row they name.
struct AttentionBackwardOrderParams {
  const int32_t* list;  // row of each position; what lies outside [0, rows) comes last
  int64_t list_sb, list_sh;
  int64_t heads, count, rows;  // lists of a batch entry, positions of a list
  uint64_t* entries;           // [lists, count]: row << 32 | position, sorted in chunks
  int chunk;
};

struct AttentionBackwardRowsParams {
  const float* from;        // [batch, heads, count, dim]: the gradient of each position of the list
  AttentionTensor to;       // f32; every row is written
  const uint64_t* entries;  // sorted; strides of a batch entry and a head, 0 where they share a list
  int64_t entries_sb, entries_sh;
  int64_t batch, heads, rows, count;
  int32_t dim;
};

}  // namespace fovea::cuda
