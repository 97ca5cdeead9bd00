// Gradients of neighborhood attention by query boxes (neighborhood_tile.h).
//
//   P = 2^(S - lse)   dP^T = V rows x dO^T   dS = P (dP - delta)   dQ^T += K rows x dS
//   dV += P x dO,  dK += dS x Q   with the keys' rows as rows and dims in lanes
//
// A key is seen from several boxes. One thread owns all boxes of a unit (batch, key head, lattice, band of boxes along the first axis
// longer than one) and adds dK and dV up in a buffer over the keys that the band sees; a second round sums the bands in order. So results
// depend on shapes only. Extra keys and the bias table have a partial sum per unit too.
#include "core/call_memory.h"
#include "core/float_mode.h"
#include "cpu/neighborhood.h"
#include "cpu/neighborhood_tile.h"
#include "cpu/pieces.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kLeastUnits = 8;

// How units are cut and where their partial sums lie.
struct Bands {
  const NeighborhoodParams& p;
  TileShape shape;
  int axis = 2;          // cut along it
  int64_t boxes, count;  // boxes of a band along the axis, bands of a lattice
  int64_t lattices, units;
  int64_t pitch_k, pitch_v;  // of rows of dK and dV, whole vectors
  int64_t rows;              // keys of the largest band, then the extra ones
  int64_t bias;              // floats of the bias gradient of a unit
  int64_t unit_floats;

  Bands(const NeighborhoodParams& params, bool bias_wanted) : p(params), shape(choose_tile(params)) {
    axis = p.axis[0].length > 1 ? 0 : p.axis[1].length > 1 ? 1 : 2;
    lattices = Lattice::count(p);
    const int64_t whole_units = p.batch * p.heads_kv * lattices, boxes_there = shape.grid[axis];
    boxes = divide_up(boxes_there, most(least(divide_up(kLeastUnits, whole_units), boxes_there), 1));
    count = divide_up(boxes_there, boxes);
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
    const BiasIndex index(p);
    bias = bias_wanted ? p.heads_q / p.heads_kv * index.size : 0;
    unit_floats = (rows + p.extra) * (pitch_k + pitch_v) + whole(bias, 16);
  }

  // Keys along the axis that a band sees; empty where the lattice ends before it.
  Range keys(int64_t length, int64_t band) const {
    const int64_t first = band * boxes * shape.tile[axis];
    if (first >= length) return {0, 0};
    return union_of(p.axis[axis], length, first, least(boxes * shape.tile[axis], length - first));
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

struct Workspace {
  int64_t pitch;
  float *q, *dout, *q_rows, *dout_rows, *weights, *grads, *dq, *out;
  int32_t* bias;
  float* rows;

  Workspace(const NeighborhoodParams& p, int vectors, Pieces& pieces) {
    const int64_t lanes = int64_t{vectors} * kLanes, pairs = (kChunkKeys + kRowsOfTile) * lanes;
    pitch = whole(most(p.dim, p.dim_v), 16);
    q = pieces.take(p.dim * lanes), dout = pieces.take(p.dim_v * lanes);
    q_rows = pieces.take(whole(p.dim, kLanes) * lanes), dout_rows = pieces.take(whole(p.dim_v, kLanes) * lanes);
    weights = pieces.take(pairs), grads = pieces.take(pairs);
    dq = pieces.take(p.dim * lanes), out = pieces.take(p.dim_v * lanes);
    bias = pieces.take<int32_t>(lanes);
    rows = KeyWalk::copies(p) ? pieces.take(2 * kChunkKeys * pitch) : nullptr;
  }
};

// Vectors of a panel of dims that starts at vector `first` of `vectors`: at most kVectors, and not one alone after three.
FOVEA_INLINE int panel_width(int64_t first, int64_t vectors) {
  const int64_t left = vectors - first;
  return static_cast<int>(left == 4 ? 2 : least(left, kVectors));
}

// Rows of queries, times a factor, as panels: panel after panel, [lane][width] vectors of dims; 0 beyond the last.
inline void pack_panels(const Box& b, const NeighborhoodTensor& t, int64_t dim, float factor, int lanes, float* to) {
  const int64_t vectors = divide_up(dim, kLanes);
  alignas(64) float row[256 + kLanes];
  store(row + (vectors - 1) * kLanes, zero());
  for (int lane = 0; lane < lanes; lane++) {
    widen(b.p.dtype, element(t, b.p.dtype, b.query_offset(t, lane)), t.sd, dim, row);
    float* panel = to;
    for (int64_t first = 0; first < vectors;) {
      const int width = panel_width(first, vectors);
      for (int64_t i = 0; i < width; i++) store(panel + (lane * width + i) * kLanes, load(row + (first + i) * kLanes) * factor);
      panel += int64_t{lanes} * width * kLanes;
      first += width;
    }
  }
}

template <int kWidth>
FOVEA_INLINE void add_panel(const float* const* weights, int count, int lanes, const float* panel, float* const* sums) {
  for (int j = 0; j < count; j += kRowsOfTile) {
    vf acc[kRowsOfTile][kWidth];
    multiply_tile<kWidth>(weights + j, panel, kWidth * kLanes, lanes, acc);
    FOVEA_UNROLL
    for (int i = 0; i < kRowsOfTile; i++) {
      if (j + i >= count) break;
      FOVEA_UNROLL
      for (int z = 0; z < kWidth; z++) store(sums[j + i] + z * kLanes, load(sums[j + i] + z * kLanes) + acc[i][z]);
    }
  }
}

// sums[j][d] += sum of weights[j][lane] * row d of the panels over the lanes of vectors that see key j.
template <int NZ>
void add_outer(const Chunk& chunk, const float* weights, int64_t dim, const float* panels, float** sums) {
  const float* rows[kChunkKeys + kRowsOfTile];
  for (int j = 0; j < whole(chunk.count, kRowsOfTile); j++) rows[j] = weights + least(j, chunk.count - 1) * NZ * kLanes;
  each_run<NZ>(chunk, [&]<int N>(int begin, int end, int seen) {
    for (int j = begin; j < end; j++) rows[j] += seen * kLanes;
  });
  const int64_t vectors = divide_up(dim, kLanes);
  for (int64_t first = 0; first < vectors;) {
    const int width = panel_width(first, vectors);
    each_run<NZ>(chunk, [&]<int N>(int begin, int end, int seen) {
      const int count = static_cast<int>(least(end, chunk.count)) - begin;
      const float* panel = panels + seen * kLanes * width * kLanes;
      if (width == 1) add_panel<1>(rows + begin, count, N * kLanes, panel, sums + begin);
      else if (width == 2) add_panel<2>(rows + begin, count, N * kLanes, panel, sums + begin);
      else add_panel<3>(rows + begin, count, N * kLanes, panel, sums + begin);
    });
    for (int j = 0; j < chunk.count; j++) sums[j] += width * kLanes;
    panels += int64_t{NZ} * kLanes * width * kLanes;
    first += width;
  }
}

template <int NZ>
struct BoxPass {
  const Bands& bands;
  const NeighborhoodGrads& g;
  const Box& b;
  const Workspace& w;
  const Sums& sums;
  vf lse[NZ], delta[NZ];

  // Columns and panels of q and dout, delta and lse by lane. Lanes without a query get weight 0 by an infinite lse.
  void begin() {
    const NeighborhoodParams& p = b.p;
    pack_queries(b, p.q, p.dim, p.scale * kLog2E, NZ, w.q);
    pack_panels(b, p.q, p.dim, p.scale, NZ * kLanes, w.q_rows);
    pack_queries(b, g.dout, p.dim_v, 1.f, NZ, w.dout);
    pack_panels(b, g.dout, p.dim_v, 1.f, NZ * kLanes, w.dout_rows);
    pack_queries(b, p.out, p.dim_v, 1.f, NZ, w.out);
    for (int z = 0; z < NZ; z++) {
      delta[z] = zero(), lse[z] = set1(__builtin_inff());
      for (int64_t d = 0; d < p.dim_v; d++)
        delta[z] = fma(load(w.out + (d * NZ + z) * kLanes), load(w.dout + (d * NZ + z) * kLanes), delta[z]);
      for (int i = 0; i < kLanes && z * kLanes + i < b.count; i++) {
        const int64_t row = b.row_of(z * kLanes + i);
        lse[z][i] = p.lse[row] * kLog2E;
        if (g.dlse) delta[z][i] -= g.dlse[row];
      }
    }
    for (int64_t i = 0; i < p.dim * NZ; i++) store(w.dq + i * kLanes, zero());
    if (!p.rpb) return;
    const BiasIndex index(p);
    for (int lane = 0; lane < NZ * kLanes; lane++) w.bias[lane] = static_cast<int32_t>(index.query(b, lane));
  }

  void run() {
    const NeighborhoodParams& p = b.p;
    begin();
    const int64_t tokens = bands.shape.tile[2] * p.axis[2].dilation;  // to the next box
    const Ahead<3>::Rows later[] = {
        {p.q, p.dim, tokens * p.q.sp[2]}, {g.dout, p.dim_v, tokens * g.dout.sp[2]}, {p.out, p.dim_v, tokens * p.out.sp[2]}};
    Ahead<3> ahead(b, later);
    KeyWalk walk(b, NZ, w.rows, w.pitch);
    for (Chunk chunk; walk.next(chunk);) {
      const float *k[kChunkKeys + kRowsOfTile], *v[kChunkKeys + kRowsOfTile];
      for (int j = 0; j < whole(chunk.count, kRowsOfTile); j++) {
        const int64_t from = least(j, chunk.count - 1);
        k[j] = chunk.k[from], v[j] = chunk.v[from];
      }
      multiply_rows<NZ>(chunk, k, w.q, p.dim, w.weights, ahead);
      finish_scores<NZ>(b, chunk, w.bias, w.weights);
      multiply_rows<NZ>(chunk, v, w.dout, p.dim_v, w.grads, ahead);
      differentiate(chunk);
      add_rows<NZ>(chunk, k, p.dim, w.grads, w.dq);
      float *dk[kChunkKeys], *dv[kChunkKeys];
      for (int j = 0; j < chunk.count; j++) {
        const int32_t* at = chunk.at[j];
        const bool extra = at[0] < 0;
        const int64_t row = extra ? at[2] : sums.row(bands, at);
        dk[j] = (extra ? sums.extra_k : sums.k) + row * bands.pitch_k;
        dv[j] = (extra ? sums.extra_v : sums.v) + row * bands.pitch_v;
      }
      add_outer<NZ>(chunk, w.grads, p.dim, w.q_rows, dk);
      add_outer<NZ>(chunk, w.weights, p.dim_v, w.dout_rows, dv);
      if (bands.bias) add_bias(chunk);
    }
    vf scale[NZ];
    for (int z = 0; z < NZ; z++) scale[z] = set1(p.scale);
    unpack_queries(b, g.dq, p.dim, scale, NZ, w.dq);
  }

  // Scores to weights, and products dP to dS.
  void differentiate(const Chunk& chunk) {
    const Exp2Constants* constants = exp2_constants();
    each_run<NZ>(chunk, [&]<int N>(int begin, int end, int first) {
      for (int j = begin; j < end; j++) FOVEA_UNROLL
      for (int z = 0; z < N; z++) {
        const int at = (j * NZ + first + z) * kLanes;
        vf weight = exp2_weight<Words::F32>(load(w.weights + at) - lse[first + z], constants);
        store(w.weights + at, weight);
        store(w.grads + at, weight * (load(w.grads + at) - delta[first + z]));
      }
    });
  }

  void add_bias(const Chunk& chunk) {
    const NeighborhoodParams& p = b.p;
    const BiasIndex index(p);
    float* table = sums.bias + b.head % (p.heads_q / p.heads_kv) * index.size;
    for (int j = 0; j < chunk.count && chunk.at[j][0] >= 0; j++) {
      const int64_t key = index.key(p, chunk.at[j]);
      const Block& block = chunk.block[j / kRowsOfTile];
      for (int lane = block.first * kLanes; lane < least(block.end * kLanes, b.count); lane++) {
        const float ds = w.grads[j * NZ * kLanes + lane];
        if (ds != 0) table[key - w.bias[lane]] += ds;
      }
    }
  }
};

// All boxes of a unit, for all query heads of its key head.
void run_unit(const Bands& bands, const NeighborhoodGrads& g, const Workspace& w, int64_t unit, float* base) {
  const NeighborhoodParams& p = bands.p;
  const int64_t band = unit % bands.count, head_kv = unit / bands.count / bands.lattices % p.heads_kv;
  const int64_t batch = unit / bands.count / bands.lattices / p.heads_kv, group = p.heads_q / p.heads_kv;
  Box box(p, unit / bands.count % bands.lattices);
  __builtin_memset(base, 0, static_cast<size_t>(bands.unit_floats) * 4);
  const Sums sums(bands, box.lattice, bands.keys(box.lattice.length[bands.axis], band), base);
  const int64_t* grid = bands.shape.grid;
  const int64_t inner = bands.axis == 0 ? grid[1] * grid[2] : bands.axis == 1 ? grid[2] : 1;
  const int64_t first = band * bands.boxes * inner, end = least((band + 1) * bands.boxes, grid[bands.axis]) * inner;
  for (int64_t h = 0; h < group; h++)
    for (int64_t index = first; index < end; index++) {
      if (!box.place(bands.shape, index, batch, head_kv * group + h)) continue;
      if (bands.shape.vectors == 1) BoxPass<1>{bands, g, box, w, sums, {}, {}}.run();
      else if (bands.shape.vectors == 2) BoxPass<2>{bands, g, box, w, sums, {}, {}}.run();
      else BoxPass<3>{bands, g, box, w, sums, {}, {}}.run();
    }
}

inline void write_row(DType dtype, const NeighborhoodTensor& t, int64_t offset, const float* from, int64_t n) {
  narrow_to(dtype, from, n, const_cast<char*>(element(t, dtype, offset)), t.sd);
}

// Sums the bands' rows of one row of tokens (last axis) in order.
void merge_tokens(const Bands& bands, const NeighborhoodGrads& g, const float* partial, int64_t item) {
  const NeighborhoodParams& p = bands.p;
  const NeighborhoodAxis* axis = p.axis;
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
    alignas(64) float row_k[256 + 16], row_v[256 + 16];
    for (int64_t i = 0; i < l.length[2]; i++) {
      auto merge = [&](const NeighborhoodTensor& t, int64_t Part::*from, int64_t pitch, int64_t dim, float* row) {
        for (int64_t d = 0; d < pitch; d += kLanes) {
          vf sum = zero();
          for (const Part* q = part; q < part + parts; q++)
            if (i >= q->begin && i < q->end) sum = sum + load(q->unit + q->*from + i * pitch + d);
          store(row + d, sum);
        }
        write_row(p.dtype, t, batch * t.sb + head * t.sh + x0 * t.sp[0] + x1 * t.sp[1] + l.token(p, 2, i) * t.sp[2], row, dim);
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
    for (int64_t d = 0; d < pitch; d += kLanes) {
      vf sum = zero();
      for (int64_t u = 0; u < of_head; u++)
        sum = sum + load(partial + ((batch * p.heads_kv + head) * of_head + u) * bands.unit_floats + first + n * pitch + d);
      store(row + d, sum);
    }
    write_row(p.dtype, t, batch * t.sb + head * t.sh + n * t.sp[2], row, dim);
  };
  merge(g.dextra_k, from, bands.pitch_k, p.dim);
  merge(g.dextra_v, from + p.extra * bands.pitch_k, bands.pitch_v, p.dim_v);
}

void merge_bias(const Bands& bands, const NeighborhoodGrads& g, const float* partial, int64_t head) {
  const NeighborhoodParams& p = bands.p;
  const BiasIndex index(p);
  const int64_t group = p.heads_q / p.heads_kv, of_head = bands.lattices * bands.count;
  const int64_t from = (bands.rows + p.extra) * (bands.pitch_k + bands.pitch_v) + head % group * index.size;
  for (int64_t i = 0; i < index.size; i++) {
    float sum = 0;
    for (int64_t b = 0; b < p.batch; b++)
      for (int64_t u = 0; u < of_head; u++) sum += partial[((b * p.heads_kv + head / group) * of_head + u) * bands.unit_floats + from + i];
    g.drpb[head * index.size + i] = sum;
  }
}

}  // namespace

template <>
void neighborhood_backward<kIsa>(const NeighborhoodParams& p, const NeighborhoodGrads& g, ThreadPool& pool,
                                 const std::atomic<bool>* cancel) {
  const FlushDenormals flush;
  const Bands bands(p, g.drpb != nullptr);
  const CallMemory memory(bands.units * bands.unit_floats * 4);
  float* const partial = static_cast<float*>(memory.data);
  Pieces size(nullptr);
  Workspace(p, bands.shape.vectors, size);
  auto unit = [&](int64_t index, int thread) {
    Pieces pieces(pool.scratch(thread, static_cast<size_t>(size.bytes())));
    const Workspace w(p, bands.shape.vectors, pieces);
    run_unit(bands, g, w, index, partial + index * bands.unit_floats);
  };
  pool.run(bands.units, unit, cancel);
  pool.run(
      p.batch * p.heads_kv * p.axis[0].length * p.axis[1].length, [&](int64_t item, int) { merge_tokens(bands, g, partial, item); },
      cancel);
  if (p.extra)
    pool.run(
        p.batch * p.heads_kv * p.extra, [&](int64_t item, int) { merge_extra(bands, g, partial, item); }, cancel);
  if (g.drpb)
    pool.run(
        p.heads_q, [&](int64_t head, int) { merge_bias(bands, g, partial, head); }, cancel);
}

}  // namespace fovea::cpu
