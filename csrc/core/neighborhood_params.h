// One neighborhood attention call as the kernels see it: pointers, sizes, strides.
//
// Tokens lie on up to three axes; fewer are padded in front with axes of length 1. Along an axis with dilation D, token x is coordinate
// x div D of group x mod D, and only tokens of equal groups meet. In group coordinates query i of a group of n tokens sees kernel keys
// [start, start + kernel), start = clamp(leader - kernel div 2, 0, n - kernel), where the leader of i is the middle of its stride group: at
// the borders the window is shifted, never cut. Along a causal axis it is [max(leader - kernel + 1, 0), i + 1) with the last of the stride
// group as leader.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

constexpr int kNeighborhoodAxes = 3;

struct NeighborhoodAxis {
  int64_t length = 1, kernel = 1, stride = 1, dilation = 1;
  bool causal = false;
};

// [batch, ...space, heads, dim]: element (b, x, h, d) at data + b*sb + sum x[a]*sp[a] + h*sh + d*sd, strides in elements.
struct NeighborhoodTensor {
  void* data = nullptr;
  int64_t sb = 0, sp[kNeighborhoodAxes] = {}, sh = 0, sd = 1;
};

struct NeighborhoodParams {
  DType dtype;                                           // of q, k, v, out: f32, bf16, f16
  int64_t batch, tokens, heads_q, heads_kv, dim, dim_v;  // tokens: of all axes together
  float scale;
  NeighborhoodAxis axis[kNeighborhoodAxes];
  NeighborhoodTensor q, k, v, out;
  float* lse = nullptr;  // [batch, tokens, heads_q], natural log

  // Keys beside the lattice that every query sees; [batch, extra, heads_kv, dim], tokens along axis 2.
  int64_t extra = 0;
  NeighborhoodTensor extra_k, extra_v;
  // Relative position bias [heads_q, 2 kernel0 - 1, 2 kernel1 - 1, 2 kernel2 - 1], indexed by key - query + kernel - 1; null = none.
  const float* rpb = nullptr;
};

struct NeighborhoodGrads {
  NeighborhoodTensor dout;        // dtype of params
  const float* dlse = nullptr;    // layout of lse, or null
  NeighborhoodTensor dq, dk, dv;  // dtype of params
  NeighborhoodTensor dextra_k, dextra_v;
  float* drpb = nullptr;  // layout of rpb, or null
};

}  // namespace fovea
