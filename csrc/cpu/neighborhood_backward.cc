// Gradients of neighborhood attention by query boxes (neighborhood_tile.h).
//
//   P = 2^(S - lse)   dP^T = V rows x dO^T   dS = P (dP - delta)   dQ += dS x K rows
//   dV += P x dO,  dK += dS x Q   with the keys' rows as rows and dims in lanes
//
// A key is seen from several boxes; dK and dV are added up as neighborhood_sums.h says, whose bands are whole boxes.
#include "core/float_mode.h"
#include "cpu/neighborhood.h"
#include "cpu/neighborhood_row_sums.h"
#include "cpu/neighborhood_sums.h"
#include "cpu/pieces.h"

namespace fovea::cpu {
namespace {

struct Workspace {
  int64_t pitch, dq_pitch;
  float *q, *dout, *q_rows, *dout_rows, *weights, *grads, *dq, *out, *ones, *scale;
  int32_t* bias;
  float* rows;

  Workspace(const NeighborhoodParams& p, int vectors, Pieces& pieces) {
    const int64_t lanes = int64_t{vectors} * kLanes, pairs = (kChunkKeys + kRowsOfTile) * lanes;
    pitch = whole(most(p.dim, p.dim_v), 16);
    q = pieces.take(p.dim * lanes), dout = pieces.take(p.dim_v * lanes);
    q_rows = pieces.take(whole(p.dim, kLanes) * lanes), dout_rows = pieces.take(whole(p.dim_v, kLanes) * lanes);
    weights = pieces.take(pairs), grads = pieces.take(pairs);
    dq_pitch = whole(p.dim, kLanes);
    dq = pieces.take(dq_pitch * lanes), out = pieces.take(p.dim_v * lanes), ones = pieces.take(lanes), scale = pieces.take(lanes);
    bias = pieces.take<int32_t>(lanes);
    rows = KeyWalk::copies(p) ? pieces.take(2 * kChunkKeys * pitch) : nullptr;
  }
};

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
  const TileShape& shape;
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
    for (int z = 0; z < NZ; z++) store(w.ones + z * kLanes, set1(1.f)), store(w.scale + z * kLanes, set1(p.scale));
    if (!p.rpb) return;
    const BiasIndex index(p);
    for (int lane = 0; lane < NZ * kLanes; lane++) w.bias[lane] = static_cast<int32_t>(index.query(b, lane));
  }

  void run() {
    const NeighborhoodParams& p = b.p;
    begin();
    const int64_t next = shape.tile[2] * p.axis[2].dilation, keys = next + Ahead<5>::newest(p.axis[2]);  // tokens to those of the next box
    const Ahead<5>::Rows later[] = {{p.q, p.dim, next * p.q.sp[2]},
                                    {g.dout, p.dim_v, next * g.dout.sp[2]},
                                    {p.out, p.dim_v, next * p.out.sp[2]},
                                    {p.k, p.dim, keys * p.k.sp[2]},
                                    {p.v, p.dim_v, keys * p.v.sp[2]}};
    Ahead<5> ahead(b, later);
    const QueryRows dq(b, g.dq, p.dim, w.dq, w.dq_pitch);
    KeyWalk walk(b, NZ, w.rows, w.pitch);
    for (Chunk chunk; walk.next(chunk);) {
      multiply_rows<NZ>(chunk, chunk.k, w.q, p.dim, w.weights, ahead);
      finish_scores<NZ>(b, chunk, w.bias, w.weights);
      multiply_rows<NZ>(chunk, chunk.v, w.dout, p.dim_v, w.grads, ahead);
      differentiate(chunk);
      sum_rows(b, chunk, chunk.k, w.grads, NZ * kLanes, {w.dq, w.dq_pitch, w.ones, w.scale, dq.row}, ahead);
      float *dk[kChunkKeys], *dv[kChunkKeys];
      for (const Chunk::Line* line = chunk.line; line < chunk.line + chunk.lines; line++) {
        const bool extra = line->at[0] < 0;
        const int64_t row = extra ? line->at[2] : sums.row(bands, line->at);
        for (int j = line->begin; j < line->end; j++) {
          dk[j] = (extra ? sums.extra_k : sums.k) + (row + j - line->begin) * bands.pitch_k;
          dv[j] = (extra ? sums.extra_v : sums.v) + (row + j - line->begin) * bands.pitch_v;
        }
      }
      add_outer<NZ>(chunk, w.grads, p.dim, w.q_rows, dk);
      add_outer<NZ>(chunk, w.weights, p.dim_v, w.dout_rows, dv);
      if (bands.bias) add_bias(chunk);
    }
    dq.finish();
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
    for (const Chunk::Line* line = chunk.line; line < chunk.line + chunk.lines && line->at[0] >= 0; line++)
      for (int j = line->begin; j < line->end; j++) {
        const int64_t key = index.key(p, line->at) + j - line->begin;
        const Block& block = chunk.block[j / kRowsOfTile];
        for (int lane = block.first * kLanes; lane < least(block.end * kLanes, b.count); lane++) {
          const float ds = w.grads[j * NZ * kLanes + lane];
          if (ds != 0) table[key - w.bias[lane]] += ds;
        }
      }
  }
};

// All boxes of a unit, for all query heads of its key head.
void run_unit(const Bands& bands, const TileShape& shape, const NeighborhoodGrads& g, const Workspace& w, int64_t unit, float* base) {
  const NeighborhoodParams& p = bands.p;
  const int64_t band = unit % bands.count, head_kv = unit / bands.count / bands.lattices % p.heads_kv;
  const int64_t batch = unit / bands.count / bands.lattices / p.heads_kv, group = p.heads_q / p.heads_kv;
  Box box(p, unit / bands.count % bands.lattices, p.dim);
  __builtin_memset(base, 0, static_cast<size_t>(bands.unit_floats) * 4);
  const Sums sums(bands, box.lattice, bands.keys(box.lattice.length[bands.axis], band), base);
  const int64_t* grid = shape.grid;
  const int64_t inner = bands.axis == 0 ? grid[1] * grid[2] : bands.axis == 1 ? grid[2] : 1, boxes = bands.length / shape.tile[bands.axis];
  const int64_t first = band * boxes * inner, end = least((band + 1) * boxes, grid[bands.axis]) * inner;
  for (int64_t h = 0; h < group; h++)
    for (int64_t index = first; index < end; index++) {
      if (!box.place(shape, index, batch)) continue;
      box.choose(head_kv * group + h);
      if (shape.vectors == 1) BoxPass<1>{bands, shape, g, box, w, sums, {}, {}}.run();
      else if (shape.vectors == 2) BoxPass<2>{bands, shape, g, box, w, sums, {}, {}}.run();
      else BoxPass<3>{bands, shape, g, box, w, sums, {}, {}}.run();
    }
}

}  // namespace

template <>
void neighborhood_tiles_backward<kIsa>(const NeighborhoodParams& p, const NeighborhoodGrads& g, ThreadPool& pool,
                                       const std::atomic<bool>* cancel) {
  const FlushDenormals flush;
  const TileShape shape = choose_tile(p);
  const Bands bands(p, shape.tile[Bands::axis_of(p)], g.drpb != nullptr, false);
  Pieces size(nullptr);
  Workspace(p, shape.vectors, size);
  run_units(bands, g, pool, cancel, [&](int64_t unit, int thread, float* sums) {
    Pieces pieces(pool.scratch(thread, static_cast<size_t>(size.bytes())));
    run_unit(bands, shape, g, Workspace(p, shape.vectors, pieces), unit, sums);
  });
}

}  // namespace fovea::cpu
