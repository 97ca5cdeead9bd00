// Windows of neighborhood attention on the device: which keys a query sees along an axis, which queries see a key, and where rows lie.
//
// A call is a set of independent lattices, one per combination of dilation groups (core/neighborhood_params.h). A block owns a box of the
// lattice, of queries or of keys, and visits boxes of the other side that together cover what its rows see (or are seen by). Windows only
// move forward along an axis, and so does the range of queries that see a key; both have closed forms, so nothing is stored but numbers.
#pragma once

#include "attention_visibility.cuh"
#include "cuda/neighborhood_params.h"

namespace fovea::cuda {

constexpr int kAxes = kNeighborhoodAxes;

struct Range {
  int begin, end;
};

// One axis of a lattice, in its own coordinates.
struct LatticeAxis {
  int length, kernel, stride;
  int causal;

  __device__ __forceinline__ int group_of(int i) const { return stride == 1 ? i : i / stride; }  // of queries that share a window

  // Keys that query i sees.
  __device__ __forceinline__ Range keys_of(int i) const {
    const int first = group_of(i) * stride;
    if (causal) return {max(min(first + stride - 1, length - 1) - kernel + 1, 0), i + 1};
    const int begin = min(max(first + stride / 2 - kernel / 2, 0), length - kernel);
    return {begin, begin + kernel};
  }

  // Queries that see key j, by solving keys_of for i.
  __device__ __forceinline__ Range queries_of(int j) const {
    if (causal) return {j, j + kernel >= length ? length : group_of(j + kernel) * stride};
    const int ahead = kernel / 2 - stride / 2;  // how far a window begins before its group
    const int begin = j < kernel ? 0 : group_of(j - kernel + ahead + stride) * stride;
    const int end = j >= length - kernel ? length : min((group_of(j + ahead) + 1) * stride, length);
    return {begin, end};
  }

  template <bool kOwnKeys>
  __device__ __forceinline__ Range seen_from(int i) const {
    if constexpr (kOwnKeys) return queries_of(i);
    else return keys_of(i);
  }
};

__device__ __forceinline__ int box_coordinate(const NeighborhoodBoxes& boxes, int a, int row) {
  return row >> boxes.low[a] & ((1 << boxes.shift[a]) - 1);
}

// Along an axis: what some and what all of a set of rows see.
struct Sight {
  Range some, all;
};

// What a block knows about its place; lies in shared memory and is read where it is needed. Its size keeps tiles behind it aligned.
template <int kWarps>
struct alignas(128) LatticePlace {
  int batch, head, kv_head, outside;
  int group[kAxes], first[kAxes];
  LatticeAxis axis[kAxes];
  Sight sight[kWarps + 1][kAxes];  // of the rows of each warp, and of the block
};

// Fills `place` for block `index`; all threads of the block come here. A warp owns kWarpRows rows of the box, in order. `heads` is the
// number of heads on the owned side. False where the box lies outside its lattice (they differ in length by one).
template <bool kOwnKeys, int kWarps, int kWarpRows>
__device__ __forceinline__ bool take_place(const NeighborhoodKernelParams& params, uint32_t index, int heads, LatticePlace<kWarps>& place) {
  if (threadIdx.x == 0) {
    const NeighborhoodAxis* axes = params.call.axis;
    uint32_t rest = index;
    int box[kAxes];
#pragma unroll
    for (int a = kAxes - 1; a >= 0; a--) {
      box[a] = static_cast<int>(rest % static_cast<uint32_t>(params.grid[a]));
      rest /= static_cast<uint32_t>(params.grid[a]);
    }
    place.outside = 0;
#pragma unroll
    for (int a = kAxes - 1; a >= 0; a--) {
      const int dilation = static_cast<int>(axes[a].dilation), group = static_cast<int>(rest % static_cast<uint32_t>(dilation));
      rest /= static_cast<uint32_t>(dilation);
      place.group[a] = group;
      place.axis[a] = {(static_cast<int>(axes[a].length) - group + dilation - 1) / dilation, static_cast<int>(axes[a].kernel),
                       static_cast<int>(axes[a].stride), axes[a].causal};
      place.first[a] = box[a] << params.owned.shift[a];
      place.outside |= place.first[a] >= place.axis[a].length;
    }
    place.head = static_cast<int>(rest % static_cast<uint32_t>(heads));
    place.kv_head = kOwnKeys ? place.head : place.head / static_cast<int>(params.call.heads_q / params.call.heads_kv);
    place.batch = static_cast<int>(rest / static_cast<uint32_t>(heads));
  }
  __syncthreads();
  if (place.outside) return false;
  const int part = static_cast<int>(threadIdx.x) / kAxes, a = static_cast<int>(threadIdx.x) % kAxes;
  if (part <= kWarps) {
    const int row = part < kWarps ? part * kWarpRows : 0, last_row = (part < kWarps ? row + kWarpRows : kWarps * kWarpRows) - 1;
    const LatticeAxis& axis = place.axis[a];
    const int first = place.first[a] + box_coordinate(params.owned, a, row);
    const int last = min(place.first[a] + box_coordinate(params.owned, a, last_row), axis.length - 1);
    const Range front = axis.template seen_from<kOwnKeys>(first), back = axis.template seen_from<kOwnKeys>(last);
    place.sight[part][a] = first > last ? Sight{{0, 0}, {0, 0}} : Sight{{front.begin, back.end}, {back.begin, front.end}};
  }
  __syncthreads();
  return true;
}

// Boxes of the other side that a block visits, in order, and tiles of extra keys behind them.
struct TileWalk {
  int at[kAxes];  // first coordinates of the box; of extra keys: {-1, 0, number of the first}
  int begin[kAxes], end[kAxes];

  __device__ __forceinline__ explicit TileWalk(const Sight (&sight)[kAxes]) {
#pragma unroll
    for (int a = 0; a < kAxes; a++) at[a] = begin[a] = sight[a].some.begin, end[a] = sight[a].some.end;
  }
  __device__ __forceinline__ bool extra() const { return at[0] < 0; }
  // False when there is no further tile. `extras`: how many extra keys come behind the boxes.
  __device__ __forceinline__ bool next(const NeighborhoodKernelParams& params, int extras) {
    if (extra()) return (at[2] += 1 << params.extra.shift[2]) < extras;
#pragma unroll
    for (int a = kAxes - 1; a >= 0; a--) {
      if ((at[a] += 1 << params.visited.shift[a]) < end[a]) return true;
      at[a] = begin[a];
    }
    at[0] = -1, at[1] = at[2] = 0;
    return extras > 0;
  }
};

// What the rows of a warp see of a box: nothing, everything, or it has to be looked at pair by pair.
enum class View { kNone, kSome, kAll };

__device__ __forceinline__ View view_of(const Sight (&sight)[kAxes], const NeighborhoodBoxes& boxes, const int (&at)[kAxes]) {
  bool all = true;
#pragma unroll
  for (int a = 0; a < kAxes; a++) {
    const Sight& s = sight[a];
    const int end = at[a] + (1 << boxes.shift[a]);
    if (at[a] >= s.some.end || end <= s.some.begin) return View::kNone;
    all = all && at[a] >= s.all.begin && end <= s.all.end;
  }
  return all ? View::kAll : View::kSome;
}

// Bit i: row `row` + i of the box of queries at `first` sees the key at `key`. `row` is a multiple of the number of bits that are used.
__device__ __forceinline__ uint32_t viewers(const LatticeAxis (&axes)[kAxes], const NeighborhoodBoxes& boxes, const int (&first)[kAxes],
                                            int row, const int (&key)[kAxes]) {
  uint32_t word = ~0u;
#pragma unroll
  for (int a = 0; a < kAxes; a++) {
    if (key[a] >= axes[a].length) return 0;
    const Range r = axes[a].queries_of(key[a]);
    const int size = 1 << boxes.shift[a], low = boxes.low[a], within = row & ((size << low) - 1);
    const int begin = min(max(r.begin - first[a], 0), size), end = min(max(r.end - first[a], 0), size);
    word &= bit_range((begin << low) - within, (end << low) - within) * boxes.repeat[a];
  }
  return word;
}

// Rows of one tensor, batch entry and head along a lattice; rows from `limit` on are absent.
template <class T>
struct LatticeRows {
  T* base;
  int64_t step[kAxes];

  __device__ __forceinline__ LatticeRows(const NeighborhoodParams& p, const NeighborhoodTensor& t, int batch, int head,
                                         const int (&group)[kAxes])
      : base(static_cast<T*>(t.data) + batch * t.sb + head * t.sh) {
#pragma unroll
    for (int a = 0; a < kAxes; a++) step[a] = p.axis[a].dilation * t.sp[a], base += group[a] * t.sp[a];
  }
  // Of extra keys, numbered along the last axis.
  __device__ __forceinline__ LatticeRows(const NeighborhoodTensor& t, int batch, int head)
      : base(static_cast<T*>(t.data) + batch * t.sb + head * t.sh), step{0, 0, t.sp[2]} {}
  __device__ __forceinline__ T* at(const int (&i)[kAxes]) const { return base + i[0] * step[0] + i[1] * step[1] + i[2] * step[2]; }
};

// The rows of one box, as Tile::fill wants them.
template <class T>
struct BoxRows {
  LatticeRows<const T> rows;
  const NeighborhoodBoxes& boxes;
  int first[kAxes], limit[kAxes];

  __device__ __forceinline__ const T* fallback() const { return rows.base; }
  __device__ __forceinline__ const T* operator()(int r) const {
    int i[kAxes];
#pragma unroll
    for (int a = 0; a < kAxes; a++)
      if ((i[a] = first[a] + box_coordinate(boxes, a, r)) >= limit[a]) return nullptr;
    return rows.at(i);
  }
};

// The box of the owned side that a block stands on.
template <class T, int kWarps>
__device__ __forceinline__ BoxRows<T> owned_rows(const NeighborhoodKernelParams& params, const NeighborhoodTensor& t,
                                                 const LatticePlace<kWarps>& place) {
  BoxRows<T> r{LatticeRows<const T>(params.call, t, place.batch, place.head, place.group), params.owned, {}, {}};
#pragma unroll
  for (int a = 0; a < kAxes; a++) r.first[a] = place.first[a], r.limit[a] = place.axis[a].length;
  return r;
}

// The box of the other side at walk.at, of head `head` there.
template <class T, int kWarps>
__device__ __forceinline__ BoxRows<T> visited_rows(const NeighborhoodKernelParams& params, const NeighborhoodTensor& t,
                                                   const LatticePlace<kWarps>& place, int head, const TileWalk& walk) {
  BoxRows<T> r{LatticeRows<const T>(params.call, t, place.batch, head, place.group), params.visited, {}, {}};
#pragma unroll
  for (int a = 0; a < kAxes; a++) r.first[a] = walk.at[a], r.limit[a] = walk.end[a];
  return r;
}

template <class T>
__device__ __forceinline__ BoxRows<T> extra_rows(const NeighborhoodKernelParams& params, const NeighborhoodTensor& t, int batch, int head,
                                                 const TileWalk& walk) {
  return {LatticeRows<const T>(t, batch, head), params.extra, {0, 0, walk.at[2]}, {1, 1, static_cast<int>(params.call.extra)}};
}

// f(rows, step, wide) for the tile of keys, or of values, that a block of queries visits at `walk`: of the lattice, or extra ones. `wide`
// is the bit of the operand.
template <class T, int kWarps, class F>
__device__ __forceinline__ void visit_keys(const NeighborhoodKernelParams& params, const LatticePlace<kWarps>& place, const TileWalk& walk,
                                           const NeighborhoodTensor& t, const NeighborhoodTensor& extra, int wide, F&& f) {
  if (walk.extra()) f(extra_rows<T>(params, extra, place.batch, place.kv_head, walk), extra.sd, params.wide_extra & wide);
  else f(visited_rows<T>(params, t, place, place.kv_head, walk), t.sd, params.wide & wide);
}

// Coordinates of row `row` of the owned box; false where the lattice has none.
template <int kWarps>
__device__ __forceinline__ bool owned_coordinates(const NeighborhoodKernelParams& params, const LatticePlace<kWarps>& place, int row,
                                                  int (&i)[kAxes]) {
  bool there = true;
#pragma unroll
  for (int a = 0; a < kAxes; a++) there = (i[a] = place.first[a] + box_coordinate(params.owned, a, row)) < place.axis[a].length && there;
  return there;
}

// Index of a query's row in lse and delta, [batch, tokens, heads].
__device__ __forceinline__ int64_t row_index(const NeighborhoodParams& p, int batch, int head, const int (&group)[kAxes],
                                             const int (&i)[kAxes]) {
  int64_t token = batch;
#pragma unroll
  for (int a = 0; a < kAxes; a++) token = token * p.axis[a].length + i[a] * p.axis[a].dilation + group[a];
  return token * p.heads_q + head;
}

// The table of a head, and indices into it: entry bias_index(key + kernel - 1) - bias_index(query).
struct BiasTable {
  int step[kAxes], size;
  __device__ __forceinline__ explicit BiasTable(const NeighborhoodParams& p) {
    step[2] = 1;
    step[1] = 2 * static_cast<int>(p.axis[2].kernel) - 1;
    step[0] = step[1] * (2 * static_cast<int>(p.axis[1].kernel) - 1);
    size = step[0] * (2 * static_cast<int>(p.axis[0].kernel) - 1);
  }
  __device__ __forceinline__ int query(const int (&i)[kAxes]) const { return i[0] * step[0] + i[1] * step[1] + i[2] * step[2]; }
  __device__ __forceinline__ int key(const NeighborhoodParams& p, const int (&j)[kAxes]) const {
    int index = 0;
#pragma unroll
    for (int a = 0; a < kAxes; a++) index += (j[a] + static_cast<int>(p.axis[a].kernel) - 1) * step[a];
    return index;
  }
};

}  // namespace fovea::cuda
