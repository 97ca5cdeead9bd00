// One decoding pass: keys are split in ranges of kRangeKeys, one task each, whatever the length of the cache or the number of threads; a
// second round merges the ranges in order.
#pragma once

#include "core/call_memory.h"
#include "core/float_mode.h"
#include "core/thread_pool.h"
#include "cpu/attention_decode_block.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kRangeKeys = 1024;

// All rows of (batch b, key head h) as one tile: lane = head offset * len_q + query.
inline void place_at(const DecodeShape& s, int64_t b, int64_t h, QueryTile& t) {
  t.seq = sequence_at(s.p, b);
  t.kv_head = h;
  t.head = h * s.group;
  t.first = 0;
  t.queries = static_cast<int>(s.p.len_q);
  t.heads = static_cast<int>(s.group);
  t.lanes = static_cast<int>(s.rows);
  t.vectors = 1;
  set_ranges(s.p, t);
}

template <class T, Words kWords>
void merge_ranges(const DecodeShape& s, const QueryTile& t, int64_t ranges, const float* parts, float* row) {
  const AttentionParams& p = s.p;
  for (int r = 0; r < s.rows; r++) {
    auto sum_of = [&](int64_t i) { return parts[i * s.partial_floats() + s.tile_rows * s.value_pitch + r]; };
    auto maximum_of = [&](int64_t i) { return parts[i * s.partial_floats() + s.tile_rows * (s.value_pitch + 1) + r]; };
    float highest = kLowest, sum = 0;
    for (int64_t i = 0; i < ranges; i++) highest = maximum_of(i) > highest ? maximum_of(i) : highest;
    for (int64_t d = 0; d < s.value_pitch; d += kLanes) store(row + d, zero());
    for (int64_t i = 0; i < ranges; i++) {
      const float factor = exp2(set1(maximum_of(i) - highest))[0], *part = parts + i * s.partial_floats() + r * s.value_pitch;
      sum += sum_of(i) * factor;
      for (int64_t d = 0; d < s.value_pitch; d += kLanes) store(row + d, fma(set1(factor), load(part + d), load(row + d)));
    }
    const float inverse = sum == 0 ? 0 : 1 / sum;
    T* to = static_cast<T*>(p.out.data) + t.seq.batch * p.out.sb + t.head_of(r) * p.out.sh + t.query_of(r) * p.out.sl;
    for (int64_t d = 0; d < p.dim_v; d++) to[d * p.out.sd] = narrow<T>(row[Chunk<T, kWords>::place_in_row(d)] * inverse);
    if (!p.lse) continue;
    float lse = sum == 0 ? -kInfinity : sum != sum ? sum : highest * kLn2 + log_positive(set1(sum))[0];
    p.lse[t.seq.batch * p.lse_sb + t.head_of(r) * p.lse_sh + t.query_of(r) * p.lse_sl] = lse;
  }
}

// Body visits one range for all rows of a place; its partial results have rows of outputs as Chunk<T, kWords> places their elements.
template <class T, Words kWords, class Body>
void decode(const DecodeShape& s, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const FlushDenormals flush;
  const AttentionParams& p = s.p;
  const int64_t places = p.batch * p.heads_kv, ranges = ceil_div(p.len_kv, kRangeKeys);
  const CallMemory memory(places * ranges * s.partial_floats() * 4);
  float* const partials = static_cast<float*>(memory.data);
  const size_t bytes = static_cast<size_t>(Body::scratch_floats(s)) * 4;
  auto visit = [&](int64_t item, int thread) {
    QueryTile t;
    place_at(s, item / ranges / p.heads_kv, item / ranges % p.heads_kv, t);
    const int64_t from = item % ranges * kRangeKeys;
    Body(s, t, static_cast<float*>(pool.scratch(thread, bytes))).run(from, from + kRangeKeys, partials + item * s.partial_floats());
  };
  pool.run(places * ranges, visit, cancel);
  auto merge = [&](int64_t place, int thread) {
    QueryTile t;
    place_at(s, place / p.heads_kv, place % p.heads_kv, t);
    float* row = static_cast<float*>(pool.scratch(thread, static_cast<size_t>(s.value_pitch) * 4));
    merge_ranges<T, kWords>(s, t, ranges, partials + place * ranges * s.partial_floats(), row);
  };
  pool.run(places, merge, cancel);
}

}  // namespace
}  // namespace fovea::cpu
