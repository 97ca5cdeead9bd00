// dK and dV as partial sums: one key is seen from many queries.
//
// A unit (batch, key head, lattice, band of queries along the first axis longer than one) adds up what its queries, of all query heads of
// its key head, give to the keys that the band sees. A second round sums the bands in order; where a row of keys is seen from one band
// alone, that one may write it. How queries are cut depends on shapes only, so results do. Extra keys and the bias table have a partial
// sum per unit too.
#pragma once

#include "core/call_memory.h"
#include "core/thread_pool.h"
#include "cpu/neighborhood_rows.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kLeastUnits = 8;

// Entries of a head's table of biases.
inline int64_t bias_size(const NeighborhoodParams& p) {
  return (2 * p.axis[0].kernel - 1) * (2 * p.axis[1].kernel - 1) * (2 * p.axis[2].kernel - 1);
}

// How units are cut and where their partial sums lie.
struct Bands {
  const NeighborhoodParams& p;
  bool direct;     // units write dK and dV themselves where no other band sees the row
  int axis;        // cut along it
  int64_t length;  // queries of a band along the axis
  int64_t count;   // bands of a lattice
  int64_t lattices, units;
  int64_t pitch_k, pitch_v;  // of rows of dK and dV, whole vectors
  int64_t rows;              // keys of the largest band, then the extra ones
  int64_t bias;              // floats of the bias gradient of a unit
  int64_t unit_floats;

  static int axis_of(const NeighborhoodParams& p) { return p.axis[0].length > 1 ? 0 : p.axis[1].length > 1 ? 1 : 2; }

  // A band is whole boxes, of `box` queries along the axis, and no shorter than half a window: what surrounds it is packed and summed
  // twice.
  Bands(const NeighborhoodParams& params, int64_t box, bool bias_wanted, bool direct) : p(params), direct(direct), axis(axis_of(params)) {
    lattices = Lattice::count(p);
    const int64_t whole_units = p.batch * p.heads_kv * lattices, boxes = divide_up(group_length(p.axis[axis], 0), box);
    const int64_t bands = most(least(divide_up(kLeastUnits, whole_units), boxes), 1);
    const int64_t of_band = most(divide_up(boxes, bands), divide_up(divide_up(p.axis[axis].kernel, 2), box));
    length = of_band * box, count = divide_up(boxes, of_band);
    units = whole_units * count;
    pitch_k = whole(p.dim, 16), pitch_v = whole(p.dim_v, 16);
    int64_t longest = 0;
    for (int64_t band = 0; band < count; band++) {
      Range r = keys(group_length(p.axis[axis], 0), band);
      longest = most(longest, r.end - r.begin);
    }
    rows = longest + 1;  // groups that are shorter by one may see one key more
    for (int a = 0; a < 3; a++)
      if (a != axis) rows *= group_length(p.axis[a], 0);
    if (direct && count == 1) rows = 0;
    bias = bias_wanted ? p.heads_q / p.heads_kv * bias_size(p) : 0;
    unit_floats = (rows + p.extra) * (pitch_k + pitch_v) + whole(bias, 16);
  }

  // Keys along the axis, of n tokens, that a band sees; empty where they end before it.
  Range keys(int64_t n, int64_t band) const {
    const int64_t first = band * length;
    if (first >= n) return {0, 0};
    return union_of(p.axis[axis], n, first, least(length, n - first));
  }
  // Whether several bands see the keys at a place of the axis.
  bool shares(int64_t n, int64_t key) const {
    int64_t seen = 0;
    for (int64_t band = 0; band < count; band++) {
      const Range r = keys(n, band);
      seen += key >= r.begin && key < r.end;
    }
    return seen > 1;
  }
};

// The partial sums of a unit.
struct Sums {
  float *k, *v, *extra_k, *extra_v, *bias;
  int64_t stride[3], first;

  Sums(const Bands& b, const Lattice& l, Range keys, float* base) : first(keys.begin) {
    const int64_t n[3] = {b.axis == 0 ? keys.end - keys.begin : l.length[0], b.axis == 1 ? keys.end - keys.begin : l.length[1],
                          b.axis == 2 ? keys.end - keys.begin : l.length[2]};
    stride[2] = 1, stride[1] = n[2], stride[0] = n[1] * n[2];
    k = base, v = k + b.rows * b.pitch_k;
    extra_k = v + b.rows * b.pitch_v, extra_v = extra_k + b.p.extra * b.pitch_k;
    bias = extra_v + b.p.extra * b.pitch_v;
  }
  template <class Index>
  int64_t row(const Bands& b, const Index* at) const {
    return at[0] * stride[0] + at[1] * stride[1] + at[2] * stride[2] - first * stride[b.axis];
  }
};

inline void write_token(DType dtype, const NeighborhoodTensor& t, int64_t offset, const float* from, int64_t n) {
  narrow_to(dtype, from, n, const_cast<char*>(element(t, dtype, offset)), t.sd);
}

// Tokens of a row that are merged together, of every dilation group.
constexpr int64_t kMergedTokens = 256;
inline int64_t merged_pieces(const NeighborhoodParams& p) { return divide_up(group_length(p.axis[2], 0), kMergedTokens); }

// Sums the bands' rows of a piece of a row of tokens (last axis) in order.
void merge_tokens(const Bands& bands, const NeighborhoodGrads& g, const float* partial, int64_t item) {
  const NeighborhoodParams& p = bands.p;
  const NeighborhoodAxis* axis = p.axis;
  const int64_t first = item % merged_pieces(p) * kMergedTokens;
  item /= merged_pieces(p);
  const int64_t x0 = item / axis[1].length % axis[0].length, x1 = item % axis[1].length;
  const int64_t rest = item / (axis[0].length * axis[1].length), head = rest % p.heads_kv, batch = rest / p.heads_kv;
  const int64_t outer = x0 % axis[0].dilation * axis[1].dilation + x1 % axis[1].dilation;
  for (int64_t group = 0; group < axis[2].dilation; group++) {
    const int64_t lattice = outer * axis[2].dilation + group;
    const Lattice l(p, lattice);
    // The bands that see tokens [begin, end) of the row, and where their rows of token 0 would be.
    struct Part {
      const float* unit;
      int64_t k, v, begin, end;
    } part[kLeastUnits];
    int parts = 0;
    for (int64_t band = 0; band < bands.count; band++) {
      const Range keys = bands.keys(l.length[bands.axis], band);
      const int64_t at[3] = {x0 / axis[0].dilation, x1 / axis[1].dilation, 0};
      if (bands.axis != 2 && (at[bands.axis] < keys.begin || at[bands.axis] >= keys.end)) continue;
      const int64_t unit = ((batch * p.heads_kv + head) * bands.lattices + lattice) * bands.count + band;
      float* const base = const_cast<float*>(partial) + unit * bands.unit_floats;
      const Sums sums(bands, l, keys, base);
      const int64_t row = sums.row(bands, at);
      part[parts++] = {base, sums.k - base + row * bands.pitch_k, sums.v - base + row * bands.pitch_v, bands.axis == 2 ? keys.begin : 0,
                       bands.axis == 2 ? keys.end : l.length[2]};
    }
    if (bands.direct && parts == 1) continue;
    alignas(64) float row_k[256 + 16], row_v[256 + 16];
    for (int64_t i = first; i < least(first + kMergedTokens, l.length[2]); i++) {
      auto merge = [&](const NeighborhoodTensor& t, int64_t Part::*from, int64_t pitch, int64_t dim, float* buffer) {
        const int64_t offset = batch * t.sb + head * t.sh + x0 * t.sp[0] + x1 * t.sp[1] + l.token(p, 2, i) * t.sp[2];
        const bool as_it_is = p.dtype == DType::F32 && t.sd == 1 && dim % kLanes == 0;
        float* row = as_it_is ? static_cast<float*>(t.data) + offset : buffer;
        for (int64_t d = 0; d < dim; d += kLanes) {
          vf sum = zero();
          for (const Part* q = part; q < part + parts; q++)
            if (i >= q->begin && i < q->end) sum = sum + load(q->unit + q->*from + i * pitch + d);
          store(row + d, sum);
        }
        if (!as_it_is) write_token(p.dtype, t, offset, row, dim);
      };
      merge(g.dk, &Part::k, bands.pitch_k, p.dim, row_k);
      merge(g.dv, &Part::v, bands.pitch_v, p.dim_v, row_v);
    }
  }
}

// Sums what all units of a (batch, key head) have for one extra key.
void merge_extra(const Bands& bands, const NeighborhoodGrads& g, const float* partial, int64_t item) {
  const NeighborhoodParams& p = bands.p;
  const int64_t n = item % p.extra, head = item / p.extra % p.heads_kv, batch = item / p.extra / p.heads_kv;
  const int64_t of_head = bands.lattices * bands.count, from = bands.rows * (bands.pitch_k + bands.pitch_v);
  auto merge = [&](const NeighborhoodTensor& t, int64_t first, int64_t pitch, int64_t dim) {
    alignas(64) float row[256 + 16];
    for (int64_t d = 0; d < dim; d += kLanes) {
      vf sum = zero();
      for (int64_t u = 0; u < of_head; u++)
        sum = sum + load(partial + ((batch * p.heads_kv + head) * of_head + u) * bands.unit_floats + first + n * pitch + d);
      store(row + d, sum);
    }
    write_token(p.dtype, t, batch * t.sb + head * t.sh + n * t.sp[2], row, dim);
  };
  merge(g.dextra_k, from, bands.pitch_k, p.dim);
  merge(g.dextra_v, from + p.extra * bands.pitch_k, bands.pitch_v, p.dim_v);
}

void merge_bias(const Bands& bands, const NeighborhoodGrads& g, const float* partial, int64_t head) {
  const NeighborhoodParams& p = bands.p;
  const int64_t group = p.heads_q / p.heads_kv, of_head = bands.lattices * bands.count, size = bias_size(p);
  const int64_t from = (bands.rows + p.extra) * (bands.pitch_k + bands.pitch_v) + head % group * size;
  for (int64_t i = 0; i < size; i++) {
    float sum = 0;
    for (int64_t b = 0; b < p.batch; b++)
      for (int64_t u = 0; u < of_head; u++) sum += partial[((b * p.heads_kv + head / group) * of_head + u) * bands.unit_floats + from + i];
    g.drpb[head * size + i] = sum;
  }
}

// Runs unit(index, thread, partial sums) for every unit, then the second round.
template <class Unit>
void run_units(const Bands& bands, const NeighborhoodGrads& g, ThreadPool& pool, const std::atomic<bool>* cancel, Unit&& unit) {
  const NeighborhoodParams& p = bands.p;
  const CallMemory memory(bands.units * bands.unit_floats * 4);
  float* const partial = static_cast<float*>(memory.data);
  pool.run(
      bands.units, [&](int64_t index, int thread) { unit(index, thread, partial + index * bands.unit_floats); }, cancel);
  pool.run(
      p.batch * p.heads_kv * p.axis[0].length * p.axis[1].length * merged_pieces(p),
      [&](int64_t item, int) { merge_tokens(bands, g, partial, item); }, cancel);
  if (p.extra)
    pool.run(
        p.batch * p.heads_kv * p.extra, [&](int64_t item, int) { merge_extra(bands, g, partial, item); }, cancel);
  if (g.drpb)
    pool.run(
        p.heads_q, [&](int64_t head, int) { merge_bias(bands, g, partial, head); }, cancel);
}

}  // namespace
}  // namespace fovea::cpu
