// One forward pass: hands out query tiles, or (tile, key range) pairs when there are few tiles and many keys.
//
// A tile's whole pass is attention_engine.h. Splitting keys: ranges of kSplitKeys keys leave O^T, sum and maximum in a buffer of partial
// results, merged in key order by a second round, so the result depends on shapes only.
#pragma once

#include <utility>

#include "core/call_memory.h"
#include "core/float_mode.h"
#include "cpu/attention.h"
#include "cpu/attention_engine.h"

namespace fovea::cpu {
namespace {

// Key ranges a tile is split into: more than one where a head has a single tile, for which keys are then the only parallel axis.
int64_t split_count(const AttentionParams& p) { return attention_splits_keys(p) ? ceil_div(p.len_kv, kSplitKeys) : 1; }

// Partial results of one (tile, range): O^T, sum, maximum.
int64_t partial_floats(const Call& c) { return (int64_t{c.dim_v} + 2) * kTileQueries; }

void save_partial(const Call& c, const QueryTile& t, const Workspace& w, float* to) {
  size_t row = static_cast<size_t>(t.vectors) * kVectorBytes;
  __builtin_memcpy(to, w.sum, row);
  __builtin_memcpy(to + kTileQueries, w.maximum, row);
  __builtin_memcpy(to + 2 * kTileQueries, w.out, row * static_cast<size_t>(c.dim_v));
}

void merge_partials(const Call& c, const QueryTile& t, const Workspace& w, const float* parts, int64_t count) {
  for (int z = 0; z < t.vectors; z++) {
    vf maximum = set1(kLowest), sum = zero();
    for (int64_t i = 0; i < count; i++) maximum = max(maximum, load(parts + i * partial_floats(c) + kTileQueries + z * kLanes));
    for (int d = 0; d < c.dim_v; d++) store(w.out + (d * t.vectors + z) * kLanes, zero());
    for (int64_t i = 0; i < count; i++) {
      const float* part = parts + i * partial_floats(c);
      vf factor = exp2(load(part + kTileQueries + z * kLanes) - maximum);
      sum += load(part + z * kLanes) * factor;
      for (int d = 0; d < c.dim_v; d++) {
        float* at = w.out + (d * t.vectors + z) * kLanes;
        store(at, fma(load(part + 2 * kTileQueries + (d * t.vectors + z) * kLanes), factor, load(at)));
      }
    }
    store(w.sum + z * kLanes, sum);
    store(w.maximum + z * kLanes, maximum);
  }
}

template <Words kWords>
void forward(const AttentionParams& p, const ProgramPlan* score, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const FlushDenormals flush;
  const Call call(p, score, kWords);
  const CallMemory sequences(p.cu_q ? (sequence_count(p) + 1) * static_cast<int64_t>(sizeof(int64_t)) : 0);
  int64_t* const first_tile = static_cast<int64_t*>(sequences.data);
  if (p.cu_q) TileGrid::fill(p, first_tile);
  const TileGrid grid(p, first_tile);
  const int64_t splits = split_count(p), part = partial_floats(call);
  const CallMemory memory(splits > 1 ? grid.tiles * splits * part * 4 : 0);
  float* const partials = static_cast<float*>(memory.data);
  // Of every thread: whether what its workspace keeps is of this call.
  const CallMemory kept(call.kept_values ? pool.threads() : 0);
  bool* const keeps = static_cast<bool*>(kept.data);
  if (keeps) __builtin_memset(keeps, 0, static_cast<size_t>(pool.threads()));
  Pieces needed(nullptr);
  Workspace(call, needed);
  const size_t bytes = static_cast<size_t>(needed.bytes());

  auto with_tile = [&](int64_t index, int thread, auto&& body) {
    QueryTile t;
    grid.at(index, t);
    Pieces pieces(pool.scratch(thread, bytes));
    const Workspace w(call, pieces);
    if (keeps && !std::exchange(keeps[thread], true))
      for (int64_t i = 0; i < call.kept_values; i++) w.kept[i] = {};
    dispatch_vectors(t.vectors, [&]<int NZ>() { body.template operator()<NZ>(t, w); });
  };
  auto finish = [&](const QueryTile& t, const Workspace& w) {
    with_elements<kWords>(p.dtype, [&]<class T>(TypeTag<T>) { finish_tile<T>(call, t, w); });
  };
  auto visit = [&](int64_t item, int thread) {
    int64_t index = item / splits, range = item % splits;
    QueryTile next;
    grid.place(min64(index + (splits > 1 ? 0 : pool.threads()), grid.tiles - 1), next);
    with_tile(index, thread, [&]<int NZ>(const QueryTile& t, const Workspace& w) {
      int64_t from = splits > 1 ? range * kSplitKeys : 0, to = splits > 1 ? from + kSplitKeys : INT64_MAX;
      if constexpr (kWords == Words::Bf16Tile) {
        const TileUnit unit;
        Engine<kWords, NZ>(call, t, next, w).run(from, to);
      } else {
        Engine<kWords, NZ>(call, t, next, w).run(from, to);
      }
      if (splits > 1) save_partial(call, t, w, partials + item * part);
      else finish(t, w);
    });
  };
  pool.run(grid.tiles * splits, visit, cancel);
  if (splits == 1) return;
  auto merge = [&](int64_t index, int thread) {
    with_tile(index, thread, [&]<int NZ>(const QueryTile& t, const Workspace& w) {
      merge_partials(call, t, w, partials + index * splits * part, splits);
      finish(t, w);
    });
  };
  pool.run(grid.tiles, merge, cancel);
}

}  // namespace
}  // namespace fovea::cpu
