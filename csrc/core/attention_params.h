// One attention call as the engines see it: pointers, sizes, strides. CPU and CUDA read the same struct.
//
//   out[b,h,i,:] = sum_j p[i,j] v[b,h/group,j,:],   p = softmax_j(t[i,j]) over the visible j
//   t = bias + score_program(softcap(scale * q.k)),  softcap(x) = c tanh(x / c)
//
// Positions: query i and key j of sequence b are aligned by diag(b) = 0 (top-left) or kv_len(b) - q_len(b) (bottom-right); query i sits on
// key i + diag. Causal keeps j <= i + diag; window keeps i + diag - left <= j <= i + diag + right. All structural limits intersect:
// lengths, causal, window, key ranges, block mask, mask tensor. A row with nothing visible gives out 0, lse -inf, gradient 0. lse is
// natural-log: log sum_j exp(t[i,j]).
#pragma once

#include <cstdint>

#include "core/block_mask.h"
#include "core/dtype.h"
#include "core/mask_program.h"

namespace fovea {

// Rows of q, k, v, out or a gradient: element (b, h, i, d) at data + b*sb + h*sh + i*sl + d*sd, strides in elements.
struct AttentionTensor {
  void* data = nullptr;
  int64_t sb = 0, sh = 0, sl = 0, sd = 1;
};

// A tensor broadcast over any of (b, h, q, kv): stride 0 where broadcast.
struct AttentionGrid {
  void* data = nullptr;
  DType dtype = DType::F32;
  int64_t sb = 0, sh = 0, sq = 0, skv = 0;
};

enum class Align : int32_t { TopLeft, BottomRight };

struct AttentionParams {
  DType dtype;  // of q, k, v, out: f32, bf16, f16 (f64 runs on the reference path of the tests only)
  int64_t batch, heads_q, heads_kv, len_q, len_kv, dim, dim_v;
  float scale;
  float softcap = 0;  // 0 = none
  AttentionTensor q, k, v, out;
  float* lse = nullptr;  // [batch, heads_q, len_q] with strides below, or null
  int64_t lse_sb = 0, lse_sh = 0, lse_sl = 1;

  bool causal = false;
  Align align = Align::TopLeft;
  int64_t window_left = -1, window_right = -1;  // -1 = unbounded
  const int32_t* kv_lengths = nullptr;          // [batch], clamped to len_kv; null = len_kv
  // Packed sequences: batch is 1, sequence s owns query rows [cu_q[s], cu_q[s+1]) and key rows [cu_kv[s], cu_kv[s+1]). null = not packed.
  const int32_t* cu_q = nullptr;
  const int32_t* cu_kv = nullptr;
  int64_t sequences = 0;

  // Row sources, the plans of routed mechanisms. Logical row i of (b, h) is physical row q_rows[b*sb + h*sh + i] (same for k and v
  // together); -1 = no such row (query: skipped, key: masked). null = row i itself. Coordinates seen by causal, window, masks and programs
  // are logical. With packed sequences the lists are packed too: cu_q and cu_kv are their beginnings, and sequences may share key rows.
  const int32_t* q_rows = nullptr;
  int64_t q_rows_sb = 0, q_rows_sh = 0;
  // The result of logical query i is row i of out and lse instead of row q_rows[i]; q_rows may then name a row several times. On the CPU.
  bool out_in_order = false;
  const int32_t* kv_rows = nullptr;
  int64_t kv_rows_sb = 0, kv_rows_sh = 0;
  // Keys of each query: logical query i of (b, h) sees only keys [begin, end) = key_ranges[b*sb + h*sh + 2i], [.. + 1] (packed: cu_q[s] +
  // i, keys relative to the sequence). null = no such limit.
  const int32_t* key_ranges = nullptr;
  int64_t key_ranges_sb = 0, key_ranges_sh = 0;
  // Paged keys and values: logical key j of batch b is row j % page_size of page page_table[b*page_table_sb + j / page_size]; a page is one
  // step of k.sb / v.sb.
  const int32_t* page_table = nullptr;
  int64_t page_table_sb = 0, page_size = 0;

  AttentionGrid bias;  // f32, bf16, f16; data null = none
  AttentionGrid mask;  // bool: true = visible; data null = none
  const BlockMaskView* block_mask = nullptr;
  const MaskProgram* score = nullptr;   // a score program, null = none
  int64_t q_offset = 0, kv_offset = 0;  // added to the query / key coordinates a score program sees
};

struct AttentionGrads {
  AttentionTensor dout;                     // dtype of params
  const float* dlse = nullptr;              // gradient of lse, strides of params.lse, or null
  AttentionTensor dq, dk, dv;               // data null = not wanted
  DType dtype = DType::F32;                 // of dq, dk, dv: params.dtype, or f32
  AttentionGrid dbias;                      // f32, summed over broadcast axes; data null = not wanted
  const MaskProgram* derivative = nullptr;  // of params.score
  float* const* dtables = nullptr;          // one f32 array per table of the score program; null entries = not wanted
};

}  // namespace fovea
