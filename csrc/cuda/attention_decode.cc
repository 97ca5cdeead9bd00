#include "cuda/attention_decode.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <optional>

#include "cuda/attention_decode_params.h"
#include "cuda/attention_forward.h"
#include "cuda/grid.h"
#include "cuda/score_program.h"

namespace fovea::cuda {
namespace {

constexpr int64_t kMostQueries = 16;
constexpr int64_t kLargest = 1 << 30;  // positions are 32-bit
constexpr int64_t kBlocksPerMultiprocessor = 2;
constexpr int64_t kMergePiece = 4;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The most keys that the queries of one sequence see together, and what lies before them in a fetch.
int64_t span_of(const AttentionParams& p) {
  const int64_t right = p.causal ? 0 : p.window_right;
  if (p.window_left < 0 || right < 0) return p.len_kv;
  return std::min(p.len_kv, p.window_left + right + p.len_q + kDecodeKeys - 1);
}

// Splits fill the machine with one sequence: their number follows the keys there may be, not the batch, so a row has the same bits in any
// batch.
int32_t splits_of(const AttentionParams& p, int multiprocessors, int64_t row_tiles) {
  const int64_t wanted = ceil_div(kBlocksPerMultiprocessor * multiprocessors, p.heads_kv * row_tiles);
  return static_cast<int32_t>(std::min(wanted, std::max<int64_t>(1, ceil_div(span_of(p), kDecodeLeastKeys))));
}

}  // namespace

const char* attention_decode_refusal(const AttentionParams& p) {
  if (p.len_q > kMostQueries) return "more than 16 queries";
  if (p.cu_q || p.q_rows || p.key_ranges) return "packed sequences, lists of query rows and key ranges have no few-query form";
  if (p.block_mask) return "block masks need tiles of the queries of one head";
  if (p.len_kv >= kLargest) return "positions of 2^30 and more are not addressed";
  return p.score ? score_program_refusal(*p.score) : nullptr;
}

void attention_decode(const AttentionParams& p, const AttentionLimits& limits, Stream& stream) {
  const int bucket = attention_bucket(p);
  const bool single = p.dtype == DType::F32;
  const int64_t rows = p.heads_q / p.heads_kv * p.len_q, all_rows = p.batch * p.heads_q * p.len_q;
  if (all_rows == 0) return;
  AttentionDecodeParams k{};
  k.attention = attention_kernel_params(p, limits, 1);
  k.row_tiles = static_cast<int32_t>(ceil_div(rows, single ? kDecodeRowsF32 : kDecodeRows));
  k.pitch = static_cast<int32_t>(ceil_div(p.dim_v, kMergePiece) * kMergePiece);
  k.splits = splits_of(p, stream.device().multiprocessors, k.row_tiles);
  const int64_t parts = k.splits > 1 ? all_rows * k.splits : 0;
  const Scratch scratch = stream.scratch(static_cast<size_t>(parts * (k.pitch + 1)) * sizeof(float));
  if (parts > 0) k.outs = scratch.data<float>(), k.lses = k.outs + parts * k.pitch;
  const int warps = single ? decode_warps_f32(bucket) : decode_warps(bucket);
  const int slot = single ? kDecodeKeysF32 * (bucket + 4) * 4 : kDecodeKeys * bucket * 2;
  const int slots = single ? decode_slots_f32(bucket) : decode_slots(bucket);
  const size_t bytes = static_cast<size_t>(warps * slots * slot + (single ? kDecodeRowsF32 * 4 : kDecodeRows * 2) * bucket);
  char kernel[64];
  std::snprintf(kernel, sizeof kernel, "attention_decode_%s_d%d%s", name_of(p.dtype), bucket, p.score ? "_score" : "");
  std::optional<ScoreSplice> splice;
  if (p.score) splice.emplace(kernel, *p.score, offsetof(AttentionDecodeParams, attention) + offsetof(AttentionForwardParams, score));
  stream.launch(kernel, grid_of(p.batch * p.heads_kv * k.splits * k.row_tiles), {32, static_cast<unsigned>(warps)}, bytes, k,
                splice ? &*splice : nullptr);
  if (k.splits == 1) return;
  std::snprintf(kernel, sizeof kernel, "attention_decode_merge_%s", name_of(p.dtype));
  stream.launch(kernel, threads_for(all_rows * (k.pitch / kMergePiece)), {kThreads}, 0, k);
}

}  // namespace fovea::cuda
