// Elements by index along one axis: gather, scatter and scatter-add of contiguous [outer, axis, inner].
//
// Writers take a thread for each (outer, inner) and walk the index in rising order, so the last one stays and sums have one order.
#include "core/scatter_params.h"
#include "cuda/indexed_params.h"
#include "elements.cuh"

namespace fovea::cuda {

namespace {

__device__ __forceinline__ int64_t place_of(const IndexedShape& s, int64_t o, int64_t j, int64_t i) {
  return (o * s.count + j) * s.index_inner + (s.index_inner == 1 ? 0 : i);
}

template <class T>
__device__ __forceinline__ void gather(const IndexedLaunch<GatherParams>& launch) {
  const IndexedShape& s = launch.params.shape;
  const int64_t at = global_thread();
  if (at >= s.outer * s.count * s.inner) return;
  const int64_t i = at % s.inner, j = at / s.inner % s.count, o = at / s.inner / s.count;
  const int64_t place = place_of(s, o, j, i), index = index_at(s.index, place);
  if (!in_range(index, s.size)) return note_bad(launch.bad, place);
  static_cast<T*>(launch.params.out)[at] = static_cast<const T*>(launch.params.t)[(o * s.size + index) * s.inner + i];
}

// body(o, index, i, position in the source)
template <class Body>
__device__ __forceinline__ void walk(const IndexedShape& s, int64_t* bad, Body&& body) {
  const int64_t at = global_thread();
  if (at >= s.outer * s.inner) return;
  const int64_t i = at % s.inner, o = at / s.inner;
  for (int64_t j = 0; j < s.count; j++) {
    const int64_t place = place_of(s, o, j, i), index = index_at(s.index, place);
    if (!in_range(index, s.size)) {
      note_bad(bad, place);
      continue;
    }
    body(o, index, i, (o * s.count + j) * s.inner + i);
  }
}

template <class T>
__device__ __forceinline__ void scatter(const IndexedLaunch<ScatterParams>& launch) {
  const ScatterParams& p = launch.params;
  walk(p.shape, launch.bad, [&](int64_t o, int64_t index, int64_t i, int64_t from) {
    static_cast<T*>(p.out)[(o * p.shape.size + index) * p.shape.inner + i] = static_cast<const T*>(p.src)[from];
  });
}

}  // namespace

extern "C" __global__ void gather_1(const __grid_constant__ IndexedLaunch<GatherParams> p) { gather<uint8_t>(p); }
extern "C" __global__ void gather_2(const __grid_constant__ IndexedLaunch<GatherParams> p) { gather<uint16_t>(p); }
extern "C" __global__ void gather_4(const __grid_constant__ IndexedLaunch<GatherParams> p) { gather<uint32_t>(p); }
extern "C" __global__ void gather_8(const __grid_constant__ IndexedLaunch<GatherParams> p) { gather<uint64_t>(p); }
extern "C" __global__ void scatter_1(const __grid_constant__ IndexedLaunch<ScatterParams> p) { scatter<uint8_t>(p); }
extern "C" __global__ void scatter_2(const __grid_constant__ IndexedLaunch<ScatterParams> p) { scatter<uint16_t>(p); }
extern "C" __global__ void scatter_4(const __grid_constant__ IndexedLaunch<ScatterParams> p) { scatter<uint32_t>(p); }
extern "C" __global__ void scatter_8(const __grid_constant__ IndexedLaunch<ScatterParams> p) { scatter<uint64_t>(p); }

extern "C" __global__ void scatter_add(const __grid_constant__ IndexedLaunch<ScatterAddParams> launch) {
  const ScatterAddParams& p = launch.params;
  const IndexedShape& s = p.shape;
  walk(s, launch.bad, [&](int64_t o, int64_t index, int64_t i, int64_t from) {
    p.out[(o * s.size + index) * s.inner + i] += load_as<float>(p.dtype, p.src, from);
    if (p.counts && i < s.index_inner) p.counts[(o * s.size + index) * s.index_inner + i] += 1.f;
  });
}

extern "C" __global__ void divide_counts(const __grid_constant__ DivideCountsParams p) {
  const int64_t at = global_thread(), row = at / p.inner, i = at % p.inner;
  if (row >= p.rows) return;
  p.out[at] /= fmaxf(p.counts[row * p.index_inner + (p.index_inner == 1 ? 0 : i)], 1.f);
}

extern "C" __global__ void raise_counts(const __grid_constant__ DivideCountsParams p) {
  const int64_t at = global_thread();
  if (at < p.rows * p.index_inner) p.counts[at] = fmaxf(p.counts[at], 1.f);
}

}  // namespace fovea::cuda
