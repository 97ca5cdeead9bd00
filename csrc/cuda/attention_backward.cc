#include "cuda/attention_backward.h"

#include <cstddef>
#include <cstdio>
#include <optional>

#include "cuda/attention_backward_parts.h"
#include "cuda/attention_backward_rows.h"
#include "cuda/attention_backward_scores.h"
#include "cuda/grid.h"
#include "cuda/score_program.h"

namespace fovea::cuda {
namespace {

constexpr unsigned kBlockThreads = 128;
constexpr char kValuesOnly[] = "_v";

bool needs_general(const AttentionParams& p) {
  return p.bias.data || p.mask.data || p.softcap > 0 || p.score || p.block_mask || p.key_ranges || p.q_rows || p.kv_rows;
}

}  // namespace

const char* attention_backward_refusal(const AttentionParams& p, const AttentionGrads& g) {
  if (const char* reason = attention_forward_refusal(p)) return reason;
  if (g.derivative) {
    if (const char* reason = score_program_refusal(*g.derivative)) return reason;
  }
  if (p.page_table) return "paged rows have no gradient";
  return nullptr;
}

void attention_backward(const AttentionParams& p, const AttentionLimits& limits, AttentionGrads g, Stream& stream) {
  const BackwardTiles tiles(p);
  const bool single = tiles.single;
  const int bucket = tiles.bucket;
  const char *dtype = name_of(p.dtype), *suffix = needs_general(p) && !single ? "_general" : "";
  const int64_t row_count = p.batch * p.heads_q * p.len_q;
  const Scratch delta = stream.scratch(static_cast<size_t>(row_count) * sizeof(float));
  char kernel[64];

  AttentionBackwardParams params{};
  const ListedGradients listed(p, g, limits.kv_rows, stream);
  params.grads = g;
  params.delta = delta.data<float>(), params.delta_sh = p.len_q;
  params.forward = attention_kernel_params(p, limits, tiles.owned);
  if (attention_rows_wide(g.dout, p.dim_v, p.dtype)) params.forward.wide |= kWideGrad;
  AttentionParams by_keys = p;  // packed slots of the key side
  by_keys.cu_q = p.cu_kv, by_keys.len_q = p.len_kv;
  params.kv_tiles = static_cast<int32_t>(attention_tiles(by_keys, tiles.owned));

  auto launch = [&](int64_t blocks, size_t bytes, const AttentionBackwardParams& params, const MaskProgram* derivative) {
    std::optional<ScoreSplice> splice;
    if (p.score) splice.emplace(kernel, *p.score, offsetof(AttentionForwardParams, score), derivative);
    stream.launch(kernel, grid_of(blocks), {kBlockThreads}, bytes, params, splice ? &*splice : nullptr);
  };
  std::snprintf(kernel, sizeof kernel, "attention_backward_delta_%s", dtype);
  stream.launch(kernel, grid_of((row_count + 3) / 4), {kBlockThreads}, 0, params);

  // f32 leaves P and dS of a pair of tiles in shared memory too.
  auto bytes_of = [&](int visited) {
    return tiles.operand_bytes(visited) + (single ? static_cast<size_t>(2 * tiles.owned * (visited + 4)) * 4 : 0);
  };
  AttentionBackwardParams own_keys = params;
  const KeyParts parts(own_keys, tiles, stream);
  auto run_keys = [&](const char* part) {
    std::snprintf(kernel, sizeof kernel, "attention_backward_%s_keys%s_d%d%s", dtype, part, bucket, suffix);
    launch((int64_t{own_keys.kv_tiles} << own_keys.key_parts_shift) * p.batch * p.heads_kv, bytes_of(tiles.queries), own_keys,
           part == kValuesOnly ? nullptr : g.derivative);
  };
  if (!single && (bucket == 256 || (bucket == 128 && *suffix))) {  // dK and dV do not fit the registers together
    if (g.dk.data) run_keys("_k");
    if (g.dv.data) run_keys(kValuesOnly);
  } else if (g.dk.data || g.dv.data) {
    run_keys("");
  }
  parts.finish();
  if (g.dq.data) {
    std::snprintf(kernel, sizeof kernel, "attention_backward_%s_queries_d%d%s", dtype, bucket, suffix);
    launch(params.forward.q_tiles * p.batch * p.heads_q, bytes_of(tiles.keys), params, g.derivative);
  }
  listed.finish();
  attention_backward_scores(limits, params, stream);
}

}  // namespace fovea::cuda
