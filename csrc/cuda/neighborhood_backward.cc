// Extra keys are seen by every query, so that their gradients are those of attention over the extra keys alone, given the log-sum-exp of
// all keys together: the attention kernels make them.
#include "cuda/neighborhood_backward.h"

#include <algorithm>
#include <cstdio>

#include "cuda/attention_backward.h"
#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

constexpr unsigned kBlockThreads = 128;

// Element steps of t along all tokens as one axis; -1 where there is no such step.
int64_t token_step(const NeighborhoodParams& p, const NeighborhoodTensor& t) {
  int64_t step = -1, tokens = 1;
  for (int a = kNeighborhoodAxes - 1; a >= 0; a--) {
    if (p.axis[a].length == 1) continue;
    if (step < 0) step = t.sp[a];
    else if (t.sp[a] != step * tokens) return -1;
    tokens *= p.axis[a].length;
  }
  return std::max<int64_t>(step, 0);
}

AttentionTensor over_tokens(const NeighborhoodParams& p, const NeighborhoodTensor& t) {
  return {t.data, t.sb, t.sh, token_step(p, t), t.sd};
}
AttentionTensor over_extra(const NeighborhoodTensor& t) { return {t.data, t.sb, t.sh, t.sp[2], t.sd}; }

struct ExtraCall {
  AttentionParams params{};
  AttentionGrads grads{};
  AttentionLimits limits{};

  ExtraCall(const NeighborhoodParams& p, const NeighborhoodGrads& g) {
    params.dtype = p.dtype;
    params.batch = p.batch, params.heads_q = p.heads_q, params.heads_kv = p.heads_kv;
    params.len_q = p.tokens, params.len_kv = p.extra, params.dim = p.dim, params.dim_v = p.dim_v;
    params.scale = p.scale;
    params.q = over_tokens(p, p.q), params.k = over_extra(p.extra_k), params.v = over_extra(p.extra_v), params.out = over_tokens(p, p.out);
    params.lse = p.lse, params.lse_sb = p.tokens * p.heads_q, params.lse_sh = 1, params.lse_sl = p.heads_q;
    grads.dtype = p.dtype;
    grads.dout = over_tokens(p, g.dout), grads.dlse = g.dlse;
    grads.dk = over_extra(g.dextra_k), grads.dv = over_extra(g.dextra_v);
    limits.q_rows = static_cast<int32_t>(p.tokens), limits.kv_rows = static_cast<int32_t>(p.extra);
    limits.sequence_q = limits.sequence_kv = 1 << 30;
  }
};

// Log2 of the rows of a box, and bytes of the tiles, as the kernels have them.
struct Sizes {
  int bucket, owned, queries, keys;  // queries that a block of keys visits, and the reverse
  bool single;
  explicit Sizes(const NeighborhoodParams& p) : bucket(neighborhood_bucket(p)), single(p.dtype == DType::F32) {
    const int exact = bucket <= 128 ? 5 : 4;
    owned = single ? exact : 6, queries = single ? exact : bucket <= 64 ? 6 : 5, keys = single ? exact : bucket <= 128 ? 6 : 5;
  }
  size_t bytes(int visited) const {
    const size_t rows = size_t{1} << owned, others = size_t{1} << visited, dim = static_cast<size_t>(bucket);
    return single ? (2 * (rows + others) * (dim + 4) + 2 * rows * (others + 4)) * 4 : 2 * (rows + others) * dim * 2;
  }
  // The bias kernel of 16-bit floats keeps slopes where keys and values were.
  size_t bias_bytes() const {
    if (single) return bytes(keys);
    const size_t others = size_t{1} << keys, dim = static_cast<size_t>(bucket);
    return 2 * 64 * dim * 2 + std::max(2 * others * dim * 2, 64 * (others + 1) * 4);
  }
};

}  // namespace

const char* neighborhood_backward_refusal(const NeighborhoodParams& p, const NeighborhoodGrads& g) {
  if (const char* reason = neighborhood_refusal(p)) return reason;
  if (p.extra && (token_step(p, p.q) < 0 || token_step(p, p.out) < 0 || token_step(p, g.dout) < 0))
    return "gradients of extra keys need q, out and its gradient with tokens at one distance";
  return p.extra ? attention_backward_refusal(ExtraCall(p, g).params, ExtraCall(p, g).grads) : nullptr;
}

void neighborhood_backward(const NeighborhoodParams& p, const NeighborhoodGrads& g, Stream& stream) {
  if (p.batch == 0) return;
  const Sizes sizes(p);
  const int64_t rows = p.batch * p.tokens * p.heads_q;
  const Scratch delta = stream.scratch(static_cast<size_t>(rows) * sizeof(float));
  char kernel[64];
  auto launch = [&](const char* part, int64_t blocks, size_t bytes, const NeighborhoodBackwardParams& params) {
    std::snprintf(kernel, sizeof kernel, "neighborhood_backward_%s_%s_d%d", name_of(p.dtype), part, sizes.bucket);
    stream.launch(kernel, grid_of(blocks), {kBlockThreads}, bytes, params);
  };
  auto params_of = [&](bool own_keys, int visited) {
    NeighborhoodBackwardParams params{};
    params.forward = neighborhood_boxes(p, own_keys, sizes.owned, visited);
    if (neighborhood_rows_wide(g.dout, p.dim_v, p.dtype)) params.forward.wide |= kNaWideGrad;
    params.grads = g, params.delta = delta.data<float>();
    return params;
  };
  const NeighborhoodBackwardParams by_keys = params_of(true, sizes.queries);
  NeighborhoodBackwardParams by_queries = params_of(false, sizes.keys);
  stream.launch("neighborhood_backward_delta", grid_of((rows + 3) / 4), {kBlockThreads}, 0, by_queries);

  const int64_t key_blocks = neighborhood_blocks(by_keys.forward) * p.heads_kv * p.batch,
                head_blocks = neighborhood_blocks(by_queries.forward);
  if (!sizes.single && sizes.bucket == 256) {  // dK and dV do not fit the registers together
    launch("keys_k", key_blocks, sizes.bytes(sizes.queries), by_keys);
    launch("keys_v", key_blocks, sizes.bytes(sizes.queries), by_keys);
  } else {
    launch("keys", key_blocks, sizes.bytes(sizes.queries), by_keys);
  }
  launch("queries", head_blocks * p.heads_q * p.batch, sizes.bytes(sizes.keys), by_queries);
  if (p.extra) {
    const ExtraCall call(p, g);
    attention_backward(call.params, call.limits, call.grads, stream);
  }
  if (!g.drpb) return;

  // Tables by parts: enough blocks to fill a large device, and no more memory than kMostTableBytes, by shapes alone.
  constexpr int64_t kBlocksWanted = 2048, kMostTableBytes = int64_t{256} << 20;
  int64_t size = 1;
  for (const NeighborhoodAxis& a : p.axis) size *= 2 * a.kernel - 1;
  const int64_t wanted = std::min(kBlocksWanted / p.heads_q, kMostTableBytes / (size * p.heads_q * 4));
  const int64_t parts = std::clamp<int64_t>(wanted, 1, head_blocks * p.batch), count = p.heads_q * parts * size;
  const Scratch tables = stream.scratch(static_cast<size_t>(count) * sizeof(float));
  stream.fill(tables.data(), 0, 4, static_cast<size_t>(count));
  by_queries.tables = tables.data<float>(), by_queries.parts = static_cast<int32_t>(parts);
  by_queries.table_size = static_cast<int32_t>(size);
  launch("bias", p.heads_q * parts, sizes.bias_bytes(), by_queries);
  stream.launch("neighborhood_backward_table", threads_for(p.heads_q * size), {kThreads}, 0, by_queries);
}

}  // namespace fovea::cuda
