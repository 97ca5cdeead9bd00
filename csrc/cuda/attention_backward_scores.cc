#include "cuda/attention_backward_scores.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>

#include "cuda/attention_backward.h"
#include "cuda/attention_backward_parts.h"
#include "cuda/exact_sum_params.h"
#include "cuda/grid.h"
#include "cuda/score_program.h"

namespace fovea::cuda {
namespace {

constexpr unsigned kBlockThreads = 128;
constexpr int64_t kBiasBlocks = 512;  // wanted at least, whatever the device: the order of sums follows from it

int64_t tiles_of(int64_t length, int64_t rows) { return (length + rows - 1) / rows; }

struct Gradients {
  const AttentionLimits& limits;
  AttentionBackwardParams params;
  Stream& stream;
  const AttentionParams& p = params.forward.call;
  const AttentionGrads& g = params.grads;
  const BackwardTiles tiles{p};

  void launch(const char* kind, int64_t blocks, const MaskProgram* derivative, int32_t scatter) {
    char kernel[64];
    std::snprintf(kernel, sizeof kernel, "attention_backward_%s_%s_d%d", name_of(p.dtype), kind, tiles.bucket);
    const size_t sums = static_cast<size_t>(tiles.owned) * static_cast<size_t>(tiles.keys + 1) * 4;
    const size_t bytes = std::max(tiles.operand_bytes(tiles.keys), sums);
    if (!p.score) return stream.launch(kernel, grid_of(blocks), {kBlockThreads}, bytes, params);
    const ScoreSplice splice(kernel, *p.score, offsetof(AttentionForwardParams, score), derivative, scatter);
    stream.launch(kernel, grid_of(blocks), {kBlockThreads}, bytes, params, &splice);
  }

  void bias() {
    const AttentionGrid& to = g.dbias;
    const int64_t sequences = p.cu_q ? p.sequences : p.batch, batches = to.sb ? sequences : 1, heads = to.sh ? p.heads_q : 1;
    const int64_t len_q = p.cu_q ? std::min<int64_t>(p.len_q, limits.sequence_q) : p.len_q;
    const int64_t len_kv = p.cu_q ? std::min<int64_t>(p.len_kv, limits.sequence_kv) : p.len_kv;
    const int64_t all_q_tiles = tiles_of(len_q, tiles.owned), q_tiles = to.sq ? all_q_tiles : 1;
    const int64_t kv_tiles = to.skv ? tiles_of(len_kv, tiles.keys) : 1;
    const int64_t visits = sequences / std::max<int64_t>(batches, 1) * (p.heads_q / heads) * (to.sq ? 1 : all_q_tiles);
    const int64_t owners = batches * heads * q_tiles * kv_tiles;
    if (owners == 0 || visits == 0) return;
    BiasGradient& plan = params.bias;
    const int64_t parts = std::clamp<int64_t>(kBiasBlocks / owners, 1, visits);
    plan.parts = static_cast<int32_t>(parts);
    plan.kv_tiles = static_cast<int32_t>(kv_tiles), plan.q_tiles = static_cast<int32_t>(q_tiles), plan.heads = static_cast<int32_t>(heads);
    plan.each_sequences = static_cast<int32_t>(sequences / batches), plan.each_heads = static_cast<int32_t>(p.heads_q / heads);
    plan.each_q_tiles = static_cast<int32_t>(to.sq ? 1 : all_q_tiles);
    plan.len_q = static_cast<int32_t>(len_q), plan.len_kv = static_cast<int32_t>(len_kv);
    plan.count = 1 + (batches - 1) * to.sb + (heads - 1) * to.sh + (to.sq ? len_q - 1 : 0) * to.sq + (to.skv ? len_kv - 1 : 0) * to.skv;
    const size_t floats = parts > 1 ? static_cast<size_t>(parts * plan.count) : 0;
    const Scratch memory = stream.scratch(floats * sizeof(float));
    plan.to = parts > 1 ? memory.data<float>() : static_cast<float*>(to.data);
    stream.fill(memory.data(), 0, 4, floats);
    launch("bias", owners * parts, nullptr, -1);
    if (parts > 1) add_parts({memory.data<float>(), {to.data}, DType::F32, 1, 1, 1, plan.count, plan.parts}, stream);
  }

  void table(int32_t number) {
    const int64_t length = p.score->tables[number].length;
    float* to = g.dtables[number];
    if (!to || length == 0) return;
    const size_t words = static_cast<size_t>(length) * kExactWords;
    const Scratch memory = stream.scratch(words * sizeof(int64_t));
    stream.fill(memory.data(), 0, 8, words);
    params.table = {memory.data<int64_t>(), reinterpret_cast<uint32_t*>(to)};
    for (int32_t i = 0; i < g.derivative->scatter_count; i++)
      if (g.derivative->scatters[i].table == number) launch("tables", params.forward.q_tiles * p.batch * p.heads_q, g.derivative, i);
    stream.launch("exact_sum_round", threads_for(length), {kThreads}, 0, ExactSumParams{memory.data<int64_t>(), to, length});
  }
};

}  // namespace

void attention_backward_scores(const AttentionLimits& limits, const AttentionBackwardParams& params, Stream& stream) {
  Gradients gradients{limits, params, stream};
  if (params.grads.dbias.data) gradients.bias();
  for (int32_t i = 0; params.grads.derivative && i < params.grads.derivative->table_count; i++) gradients.table(i);
}

}  // namespace fovea::cuda
