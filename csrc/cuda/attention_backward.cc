#include "cuda/attention_backward.h"

#include <cstdio>

namespace fovea::cuda {
namespace {

constexpr int kThreads = 128;

bool needs_general(const AttentionParams& p) { return p.bias.data || p.mask.data || p.softcap > 0 || p.block_mask || p.key_ranges; }

}  // namespace

const char* attention_backward_refusal(const AttentionParams& p, const AttentionGrads& g) {
  if (const char* reason = attention_forward_refusal(p)) return reason;
  if (p.dtype == DType::F32 && attention_bucket(p) > 128) return "f32 gradients have no CUDA kernel for head dims above 128";
  if (p.score) return "gradients of score programs have no CUDA kernel";
  if (p.q_rows || p.kv_rows || p.page_table) return "gradients of listed or paged rows have no CUDA kernel";
  if (g.dbias.data) return "the gradient of a bias has no CUDA kernel";
  return nullptr;
}

void attention_backward(const AttentionParams& p, const AttentionGrads& g, Stream& stream) {
  const int bucket = attention_bucket(p);
  const bool single = p.dtype == DType::F32;
  const char *dtype = name_of(p.dtype), *suffix = needs_general(p) && !single ? "_general" : "";
  const int64_t row_count = p.batch * p.heads_q * p.len_q;
  const Scratch delta = stream.scratch(static_cast<size_t>(row_count) * sizeof(float));
  char kernel[64];

  AttentionBackwardParams params{};
  params.grads = g;
  params.delta = delta.data<float>(), params.delta_sh = p.len_q;
  // Rows of the two sides of a block's tile, as the kernels have them.
  const int rows = single ? 32 : 64, queries = single ? 32 : bucket <= 64 ? 64 : 32, keys = single ? 32 : bucket <= 128 ? 64 : 32;
  params.forward = attention_kernel_params(p, nullptr, rows);
  if (attention_rows_wide(g.dout, p.dim_v, p.dtype)) params.forward.wide |= kWideGrad;
  AttentionParams by_keys = p;  // packed slots of the key side
  by_keys.cu_q = p.cu_kv, by_keys.len_q = p.len_kv;
  params.kv_tiles = static_cast<int32_t>(attention_tiles(by_keys, rows));

  std::snprintf(kernel, sizeof kernel, "attention_backward_delta_%s", dtype);
  stream.launch(kernel, {static_cast<unsigned>((row_count + 3) / 4)}, {kThreads}, 0, params);

  auto bytes_of = [&](int owned, int visited) {
    return single ? static_cast<size_t>(2 * (owned + visited) * (bucket + 4) + 2 * owned * (visited + 4)) * 4
                  : static_cast<size_t>(2 * (owned + visited) * bucket) * 2;
  };
  const auto key_blocks = static_cast<unsigned>(params.kv_tiles * p.batch * p.heads_kv);
  auto run_keys = [&](const char* part) {
    std::snprintf(kernel, sizeof kernel, "attention_backward_%s_keys%s_d%d%s", dtype, part, bucket, suffix);
    stream.launch(kernel, {key_blocks}, {kThreads}, bytes_of(rows, queries), params);
  };
  if (bucket == 256 || (bucket == 128 && *suffix)) {  // dK and dV do not fit the registers together
    if (g.dk.data) run_keys("_k");
    if (g.dv.data) run_keys("_v");
  } else if (g.dk.data || g.dv.data) {
    run_keys("");
  }
  if (g.dq.data) {
    std::snprintf(kernel, sizeof kernel, "attention_backward_%s_queries_d%d%s", dtype, bucket, suffix);
    stream.launch(kernel, {static_cast<unsigned>(params.forward.q_tiles * p.batch * p.heads_q)}, {kThreads}, bytes_of(rows, keys), params);
  }
}

}  // namespace fovea::cuda
