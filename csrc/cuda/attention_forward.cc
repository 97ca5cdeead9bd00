#include "cuda/attention_forward.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>

#include "cuda/grid.h"
#include "cuda/score_program.h"

namespace fovea::cuda {
namespace {

constexpr int64_t kLargest = 1 << 30;  // positions and in-tile offsets are 32-bit
constexpr unsigned kBlockThreads = 128;

bool needs_general(const AttentionParams& p) {
  return p.bias.data || p.mask.data || p.softcap > 0 || p.block_mask || p.score || p.q_rows || p.kv_rows || p.key_ranges || p.page_table ||
         !(p.scale > 0);
}

}  // namespace

int attention_bucket(const AttentionParams& p) {
  const int64_t dim = std::max(p.dim, p.dim_v);
  return dim <= 32 ? 32 : dim <= 64 ? 64 : dim <= 128 ? 128 : 256;
}

bool attention_rows_wide(const AttentionTensor& t, int64_t dim, DType dtype) {
  const int64_t piece = 16 / static_cast<int64_t>(size_of(dtype));
  return t.data && t.sd == 1 && dim % piece == 0 && t.sl % piece == 0 && t.sh % piece == 0 && t.sb % piece == 0 &&
         reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
}

const char* attention_forward_refusal(const AttentionParams& p) {
  if (p.len_q >= kLargest || p.len_kv >= kLargest) return "positions of 2^30 and more are not addressed";
  if (attention_tiles(p, 32) * p.batch * p.heads_q >= (int64_t{1} << 31)) return "too many query tiles for one grid";
  if (p.bias.data && (std::abs(p.bias.sq) >= kLargest / 128 || std::abs(p.bias.skv) >= kLargest / 128))
    return "rows of the bias are too far apart for 32-bit offsets within a tile";
  return p.score ? score_program_refusal(*p.score) : nullptr;
}

AttentionForwardParams attention_kernel_params(const AttentionParams& p, const AttentionLimits& limits, int64_t rows) {
  AttentionForwardParams k{};
  k.call = p, k.limits = limits;
  if (p.block_mask) k.block = *p.block_mask;
  if (p.score) k.score = score_captures(*p.score);
  k.has_score = p.score != nullptr;
  k.q_tiles = static_cast<int32_t>(attention_tiles(p, rows));
  if (attention_rows_wide(p.q, p.dim, p.dtype)) k.wide |= kWideQuery;
  if (attention_rows_wide(p.k, p.dim, p.dtype)) k.wide |= kWideKey;
  if (attention_rows_wide(p.v, p.dim_v, p.dtype)) k.wide |= kWideValue;
  if (attention_rows_wide(p.out, p.dim_v, p.dtype)) k.wide |= kWideOut;
  return k;
}

void attention_forward(const AttentionParams& p, const AttentionLimits& limits, Stream& stream) {
  const int bucket = attention_bucket(p);
  const bool single = p.dtype == DType::F32, general = needs_general(p);
  // Rows of a block and bytes of its tiles, as the kernels have them.
  const int rows = single ? (bucket <= 128 ? 64 : 32) : bucket <= (general ? 64 : 128) ? 128 : 64;
  const int keys = bucket == 128 && !general ? 48 : 64, pitch = bucket + 4;
  const size_t bytes = single ? static_cast<size_t>(rows * pitch + 32 * pitch + rows * 36) * 4
                              : static_cast<size_t>(rows + 2 * keys) * static_cast<size_t>(bucket) * 2;
  char kernel[64];
  std::snprintf(kernel, sizeof kernel, "attention_forward_%s_d%d%s", name_of(p.dtype), bucket, general && !single ? "_general" : "");
  const AttentionForwardParams params = attention_kernel_params(p, limits, rows);
  const Dim3 grid = grid_of(params.q_tiles * p.batch * p.heads_q);
  if (!p.score) return stream.launch(kernel, grid, {kBlockThreads}, bytes, params);
  const ScoreSplice splice(kernel, *p.score, offsetof(AttentionForwardParams, score));
  stream.launch(kernel, grid, {kBlockThreads}, bytes, params, &splice);
}

}  // namespace fovea::cuda
