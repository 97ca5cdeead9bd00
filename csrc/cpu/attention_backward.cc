// Attention backward: recompute P from lse, then five products a (query tile x key block), register tiles in attention_backward_tile.h.
//
// A chunk is kChunkQueries queries of one head. Its tiles are taken in strips whose packed operands fit the L2 cache: for every key block
// all tiles of the strip are visited while K, V and the block's dK, dV rows are hot. dQ^T of a tile stays in its strip; dK and dV of a
// chunk are summed in f32 in a buffer of [keys][dim]. The non-obvious choice: the gradient of a key row is the sum over chunks (heads of
// the group in order, then chunks in order) whatever the schedule. With enough (sequence, kv head) units a thread walks all chunks of a
// unit and adds them up in scratch; with too few, chunks run in parallel into workspace slots that a second pass adds in the same order.
// Both give the same bits, for any number of threads and batch. A bias that is broadcast over batch, heads or queries gets its gradient in
// a pass of its own (attention_backward_bias.h), in which every element has one owner.
#include "cpu/attention_backward.h"

#include <cstring>

#include "core/float_mode.h"
#include "cpu/attention_backward_bias.h"
#include "cpu/attention_backward_block.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kChunkQueries = 1024;
constexpr int64_t kReduceRows = 128;

struct Schedule {
  const AttentionParams& p;
  const AttentionGrads& g;
  const Programs& programs;
  int64_t sequences, units, group, max_q, max_kv, chunks, k_pitch, v_pitch;

  Schedule(const AttentionParams& params, const AttentionGrads& grads, const Programs& plans) : p(params), g(grads), programs(plans) {
    sequences = p.cu_q ? p.sequences : p.batch;
    units = sequences * p.heads_kv;
    group = p.heads_q / p.heads_kv;
    max_q = p.cu_q ? 0 : p.len_q, max_kv = p.cu_q ? 0 : p.len_kv;
    for (int64_t s = 0; p.cu_q && s < sequences; s++) {
      int64_t nq = p.cu_q[s + 1] - p.cu_q[s], nk = p.cu_kv[s + 1] - p.cu_kv[s];
      if (nq > max_q) max_q = nq;
      if (nk > max_kv) max_kv = nk;
    }
    chunks = (max_q + kChunkQueries - 1) / kChunkQueries;
    k_pitch = padded(p.dim), v_pitch = padded(p.dim_v);
  }

  int64_t slots() const { return units * group * chunks; }
  int64_t slot_floats() const { return max_kv * (k_pitch + v_pitch); }
  int64_t table_floats() const {
    int64_t n = 0;
    for (int t = 0; g.dtables && p.score && t < p.score->table_count; t++) n += g.dtables[t] ? p.score->tables[t].length : 0;
    return n;
  }
  // Packed sequences with row lists may name the same key rows, so one thread takes a head of all of them.
  bool shares_keys() const { return p.cu_q && p.kv_rows; }
  // Chunks in parallel pay for a slot each; worth it only when units alone cannot feed the threads.
  bool parallel(int threads) const {
    constexpr int64_t kMaxBytes = int64_t{1} << 31;
    return threads > 1 && units < 2 * threads && !shares_keys() && group * chunks > 1 && slots() * slot_floats() * 4 <= kMaxBytes;
  }
};

// Keys that any query of the chunk may see; lo = hi = 0 where there are none.
void chunk_range(const Schedule& s, const AttentionSequence& seq, int64_t head, int64_t chunk, int64_t* lo, int64_t* hi) {
  const int64_t first = chunk * kChunkQueries, end = first + kChunkQueries < seq.q_len ? first + kChunkQueries : seq.q_len;
  *lo = *hi = 0;
  for (int64_t q0 = first; q0 < end; q0 += kTileQ) {
    TileVisibility tile;
    tile.start(s.p, seq, head, q0);
    if (tile.lo() >= tile.hi()) continue;
    if (*hi == 0 || tile.lo() < *lo) *lo = tile.lo();
    if (tile.hi() > *hi) *hi = tile.hi();
  }
}

// One chunk into dk, dv [max_kv][pitch]; only rows in its key range are touched, and they are cleared first.
void run_chunk(const Schedule& s, BlockWork& work, const AttentionSequence& seq, int64_t head, int64_t chunk, float* dk, float* dv,
               float* tables, const std::atomic<bool>* cancel) {
  int64_t lo, hi;
  chunk_range(s, seq, head, chunk, &lo, &hi);
  memset(dk + lo * s.k_pitch, 0, (hi - lo) * s.k_pitch * 4);
  memset(dv + lo * s.v_pitch, 0, (hi - lo) * s.v_pitch * 4);
  int64_t end = (chunk + 1) * kChunkQueries < seq.q_len ? (chunk + 1) * kChunkQueries : seq.q_len;
  work.begin_head(seq, head, dk, dv, tables);
  for (int64_t q0 = chunk * kChunkQueries; q0 < end; q0 += work.strip_queries()) {
    if (cancel && cancel->load(std::memory_order_relaxed)) return;
    work.run_strip(q0, end);
  }
}

// Key rows [j0, j1) of a unit from f32 sums to dk, dv.
void write_keys(const Schedule& s, const AttentionSequence& seq, int64_t kv_head, int64_t j0, int64_t j1, const float* dk,
                const float* dv) {
  const AttentionParams& p = s.p;
  const AttentionGrads& g = s.g;
  const int32_t* rows = p.kv_rows ? p.kv_rows + seq.batch * p.kv_rows_sb + kv_head * p.kv_rows_sh : nullptr;
  for (int64_t j = j0; j < j1; j++) {
    int64_t row = rows ? rows[seq.kv_begin + j] : seq.kv_begin + j;
    if (row < 0) continue;
    if (g.dk.data)
      put_row(g.dtype, g.dk, seq.batch * g.dk.sb + kv_head * g.dk.sh + row * g.dk.sl, dk + (j - j0) * s.k_pitch, p.dim, p.scale,
              rows != nullptr);
    if (g.dv.data)
      put_row(g.dtype, g.dv, seq.batch * g.dv.sb + kv_head * g.dv.sh + row * g.dv.sl, dv + (j - j0) * s.v_pitch, p.dim_v, 1.f,
              rows != nullptr);
  }
}

void add_rows(float* sum, const float* part, int64_t floats) {
  int64_t i = 0;
  for (; i + kLanes <= floats; i += kLanes) store(sum + i, load(sum + i) + load(part + i));
  for (; i < floats; i++) sum[i] += part[i];
}

// All chunks of one unit on one thread.
void run_unit(const Schedule& s, int64_t unit, void* memory, float* tables, const std::atomic<bool>* cancel) {
  AttentionSequence seq = attention_sequence(s.p, unit / s.p.heads_kv);
  int64_t kv_head = unit % s.p.heads_kv;
  Arena arena(memory);
  float* sum_k = arena.floats(s.max_kv * s.k_pitch);
  float* sum_v = arena.floats(s.max_kv * s.v_pitch);
  float* part_k = arena.floats(s.max_kv * s.k_pitch);
  float* part_v = arena.floats(s.max_kv * s.v_pitch);
  memset(sum_k, 0, seq.kv_rows * s.k_pitch * 4);
  memset(sum_v, 0, seq.kv_rows * s.v_pitch * 4);
  int64_t chunks = (seq.q_len + kChunkQueries - 1) / kChunkQueries;
  with_work(s.p, s.g, s.programs, arena, [&](BlockWork& work) {
    for (int64_t i = 0; i < s.group * chunks; i++) {
      int64_t head = kv_head * s.group + i / chunks, chunk = i % chunks;
      float* table = tables ? tables + ((unit * s.group + i / chunks) * s.chunks + chunk) * s.table_floats() : nullptr;
      run_chunk(s, work, seq, head, chunk, i == 0 ? sum_k : part_k, i == 0 ? sum_v : part_v, table, cancel);
      if (i == 0) continue;
      int64_t lo, hi;
      chunk_range(s, seq, head, chunk, &lo, &hi);
      add_rows(sum_k + lo * s.k_pitch, part_k + lo * s.k_pitch, (hi - lo) * s.k_pitch);
      add_rows(sum_v + lo * s.v_pitch, part_v + lo * s.v_pitch, (hi - lo) * s.v_pitch);
    }
  });
  write_keys(s, seq, kv_head, 0, seq.kv_rows, sum_k, sum_v);
}

// One chunk into its slot.
void run_slot(const Schedule& s, int64_t slot, float* slots, void* memory, float* tables, const std::atomic<bool>* cancel) {
  int64_t chunk = slot % s.chunks, head = slot / s.chunks % s.p.heads_q;
  AttentionSequence seq = attention_sequence(s.p, slot / s.chunks / s.p.heads_q);
  if (chunk * kChunkQueries >= seq.q_len) return;
  Arena arena(memory);
  float* dk = slots + slot * s.slot_floats();
  with_work(s.p, s.g, s.programs, arena, [&](BlockWork& work) {
    run_chunk(s, work, seq, head, chunk, dk, dk + s.max_kv * s.k_pitch, tables ? tables + slot * s.table_floats() : nullptr, cancel);
  });
}

// Adds up rows [j0, j0 + kReduceRows) of a unit's slots in order.
void reduce_slots(const Schedule& s, int64_t unit, int64_t j0, const float* slots, void* memory) {
  AttentionSequence seq = attention_sequence(s.p, unit / s.p.heads_kv);
  int64_t kv_head = unit % s.p.heads_kv, j1 = j0 + kReduceRows < seq.kv_rows ? j0 + kReduceRows : seq.kv_rows;
  if (j0 >= j1) return;
  Arena arena(memory);
  float* sum_k = arena.floats(kReduceRows * s.k_pitch);
  float* sum_v = arena.floats(kReduceRows * s.v_pitch);
  memset(sum_k, 0, kReduceRows * s.k_pitch * 4);
  memset(sum_v, 0, kReduceRows * s.v_pitch * 4);
  int64_t chunks = (seq.q_len + kChunkQueries - 1) / kChunkQueries;
  for (int64_t i = 0; i < s.group * chunks; i++) {
    int64_t head = kv_head * s.group + i / chunks, chunk = i % chunks, lo, hi;
    chunk_range(s, seq, head, chunk, &lo, &hi);
    if (lo < j0) lo = j0;
    if (hi > j1) hi = j1;
    if (lo >= hi) continue;
    int64_t slot = ((unit / s.p.heads_kv) * s.p.heads_q + head) * s.chunks + chunk;
    const float* dk = slots + slot * s.slot_floats();
    const float* dv = dk + s.max_kv * s.k_pitch;
    float *to_k = sum_k + (lo - j0) * s.k_pitch, *to_v = sum_v + (lo - j0) * s.v_pitch;
    if (i == 0) {
      memcpy(to_k, dk + lo * s.k_pitch, (hi - lo) * s.k_pitch * 4);
      memcpy(to_v, dv + lo * s.v_pitch, (hi - lo) * s.v_pitch * 4);
    } else {
      add_rows(to_k, dk + lo * s.k_pitch, (hi - lo) * s.k_pitch);
      add_rows(to_v, dv + lo * s.v_pitch, (hi - lo) * s.v_pitch);
    }
  }
  write_keys(s, seq, kv_head, j0, j1, sum_k, sum_v);
}

// Score tables: one partial array a slot, added in order of sequence, head and chunk.
void reduce_tables(const Schedule& s, const float* tables) {
  int64_t pitch = s.table_floats();
  for (int64_t slot = 0; slot < s.slots(); slot++) {
    const float* part = tables + slot * pitch;
    for (int t = 0; t < s.p.score->table_count; t++) {
      if (!s.g.dtables[t]) continue;
      add_rows(s.g.dtables[t], part, s.p.score->tables[t].length);
      part += s.p.score->tables[t].length;
    }
  }
}

void run_parallel(const Schedule& s, float* slots, float* tables, ThreadPool& pool, const std::atomic<bool>* cancel) {
  // Later chunks see more keys under a causal mask, so they start first.
  const int64_t heads = s.units * s.group;
  pool.run(
      s.slots(),
      [&](int64_t i, int thread) {
        int64_t slot = i % heads * s.chunks + (s.chunks - 1 - i / heads);
        run_slot(s, slot, slots, pool.scratch(thread, work_bytes(s.p, s.programs)), tables, cancel);
      },
      cancel);
  if (!s.g.dk.data && !s.g.dv.data) return;
  // With row lists a physical row may be in several blocks, so one thread takes all of a unit.
  const int64_t blocks = (s.max_kv + kReduceRows - 1) / kReduceRows, step = s.p.kv_rows ? blocks : 1;
  pool.run(
      s.units * (blocks / step),
      [&](int64_t i, int thread) {
        void* memory = pool.scratch(thread, kReduceRows * (s.k_pitch + s.v_pitch) * 4 + 256);
        int64_t first = i * step;
        for (int64_t b = first; b < first + step; b++) reduce_slots(s, b / blocks, b % blocks * kReduceRows, slots, memory);
      },
      cancel);
}

}  // namespace

// Sizes are the same at every level; one of them defines this.
#if FOVEA_ISA == 0
int64_t attention_backward_workspace(const AttentionParams& params, const AttentionGrads& grads, int threads) {
  Schedule s(params, grads, {});
  return ((s.parallel(threads) ? s.slots() * s.slot_floats() : 0) + s.slots() * s.table_floats()) * 4;
}
#endif

template <>
void attention_backward<kIsa>(const AttentionParams& params, const AttentionGrads& grads, const Programs& programs, void* workspace,
                              int threads, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const FlushDenormals flush;
  Schedule s(params, grads, programs);
  const int64_t table_floats = s.slots() * s.table_floats();
  float* tables = table_floats ? static_cast<float*>(workspace) : nullptr;
  if (tables) memset(tables, 0, table_floats * 4);
  if (s.parallel(threads)) {
    run_parallel(s, static_cast<float*>(workspace) + table_floats, tables, pool, cancel);
  } else {
    const int64_t bytes = work_bytes(params, programs) + 2 * s.slot_floats() * 4 + 256;
    const int64_t together = s.shares_keys() ? s.sequences : 1;
    pool.run(
        s.units / together,
        [&](int64_t item, int thread) {
          void* memory = pool.scratch(thread, bytes);
          for (int64_t i = 0; i < together; i++) run_unit(s, together > 1 ? i * params.heads_kv + item : item, memory, tables, cancel);
        },
        cancel);
  }
  if (tables) reduce_tables(s, tables);
  if (grads.dbias.data && !bias_gradient_in_blocks(params, grads)) bias_gradient(params, grads, programs, pool, cancel);
}

}  // namespace fovea::cpu
