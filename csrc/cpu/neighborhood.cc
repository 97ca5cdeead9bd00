// Neighborhood attention by query boxes, for every call (neighborhood_tile.h).
//
// A box keeps its queries in lanes and visits the union of its windows in chunks, with the online softmax between chunks:
//
//   S^T = K rows x Q^T      P = 2^(S - m)      O += P x V rows
//
// Boxes are independent and cut by shapes alone. Nothing is permuted in memory for dilation or boxes: row pointers follow the lattice.
#include "cpu/neighborhood.h"

#include <optional>

#include "core/float_mode.h"
#include "cpu/neighborhood_row_sums.h"
#include "cpu/pieces.h"

namespace fovea::cpu {
namespace {

struct Workspace {
  int64_t pitch, out_pitch;
  float *queries, *scores, *out, *factor, *scale;
  int32_t* bias;
  float* rows;

  Workspace(const NeighborhoodParams& p, int vectors, Pieces& pieces) {
    const int64_t lanes = int64_t{vectors} * kLanes;
    pitch = whole(most(p.dim, p.dim_v), 16);
    queries = pieces.take(p.dim * lanes);
    scores = pieces.take((kChunkKeys + kRowsOfTile) * lanes);
    out_pitch = whole(p.dim_v, kLanes);
    out = pieces.take(out_pitch * lanes), factor = pieces.take(lanes), scale = pieces.take(lanes);
    bias = pieces.take<int32_t>(lanes);
    rows = KeyWalk::copies(p) ? pieces.take(2 * kChunkKeys * pitch) : nullptr;
  }
};

// Turns a chunk's scores into weights, with the running maximum and sum; what earlier chunks gave is to be scaled by `factor`.
template <int NZ>
__attribute__((noinline)) void weigh(const Chunk& chunk, float* scores, vf (&maximum)[NZ], vf (&sum)[NZ], float* factor) {
  vf top[NZ];
  FOVEA_UNROLL
  for (int z = 0; z < NZ; z++) top[z] = maximum[z];
  each_run<NZ>(chunk, [&]<int N>(int begin, int end, int first) {
    const int last = static_cast<int>(least(end, chunk.count)) - 1;
    vf highest[N][2];
    FOVEA_UNROLL
    for (int z = 0; z < N; z++) highest[z][0] = highest[z][1] = load(scores + (last * NZ + first + z) * kLanes);
    for (int j = begin; j < last; j += 2) FOVEA_UNROLL
    for (int z = 0; z < N; z++) FOVEA_UNROLL
    for (int i = 0; i < 2; i++) highest[z][i] = max(highest[z][i], load(scores + ((j + i) * NZ + first + z) * kLanes));
    for (int z = 0; z < N; z++) top[first + z] = max(top[first + z], max(highest[z][0], highest[z][1]));
  });
  FOVEA_UNROLL
  for (int z = 0; z < NZ; z++) {
    const vf scale = exp2(maximum[z] - top[z]);
    store(factor + z * kLanes, scale);
    maximum[z] = top[z];
    sum[z] = sum[z] * scale;
  }
  const Exp2Constants* constants = exp2_constants();
  each_run<NZ>(chunk, [&]<int N>(int begin, int end, int first) {
    vf total[N], shift[N];
    FOVEA_UNROLL
    for (int z = 0; z < N; z++) total[z] = zero(), shift[z] = top[first + z];
    for (int j = begin; j < least(end, chunk.count); j++) FOVEA_UNROLL
    for (int z = 0; z < N; z++) {
      float* at = scores + (j * NZ + first + z) * kLanes;
      const vf weight = exp2_weight<Words::F32>(load(at) - shift[z], constants);
      total[z] = total[z] + weight;
      store(at, weight);
    }
    for (int z = 0; z < N; z++) sum[first + z] = sum[first + z] + total[z];
  });
}

using Later = Ahead<4>;

template <int NZ>
void run_box(const Box& b, const Later::Rows (&later)[4], const Workspace& w) {
  const NeighborhoodParams& p = b.p;
  Later ahead(b, later);
  vf maximum[NZ], sum[NZ];
  for (int z = 0; z < NZ; z++) maximum[z] = set1(kLowest), sum[z] = zero();
  pack_queries(b, p.q, p.dim, p.scale * kLog2E, NZ, w.queries);
  if (p.rpb) {
    const BiasIndex index(p);
    for (int lane = 0; lane < NZ * kLanes; lane++) w.bias[lane] = static_cast<int32_t>(index.query(b, lane));
  }
  const QueryRows out(b, p.out, p.dim_v, w.out, w.out_pitch);
  KeyWalk walk(b, NZ, w.rows, w.pitch);
  for (Chunk chunk; walk.next(chunk);) {
    multiply_rows<NZ>(chunk, chunk.k, w.queries, p.dim, w.scores, ahead);
    finish_scores<NZ>(b, chunk, w.bias, w.scores);
    weigh<NZ>(chunk, w.scores, maximum, sum, w.factor);
    for (int z = 0; z < NZ; z++) store(w.scale + z * kLanes, 1.f / sum[z]);
    sum_rows(b, chunk, chunk.v, w.scores, NZ * kLanes, {w.out, w.out_pitch, w.factor, w.scale, out.row}, ahead);
  }
  for (int z = 0; z < NZ; z++) {
    const vf lse = (maximum[z] + log_positive(sum[z]) * kLog2E) * kLn2;
    for (int i = 0; p.lse && i < kLanes && z * kLanes + i < b.count; i++) p.lse[b.row_of(z * kLanes + i)] = lse[i];
  }
  out.finish();
}

}  // namespace

template <>
void neighborhood_tiles<kIsa>(const NeighborhoodParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const FlushDenormals flush;
  if (p.batch * p.tokens * p.heads_q == 0) return;
  const TileShape shape = choose_tile(p);
  const int64_t lattices = Lattice::count(p), boxes = shape.count();
  Pieces size(nullptr);
  Workspace(p, shape.vectors, size);
  // Work is handed out in runs of boxes: neighbours share keys, and each asks for the rows of the next. Threads get equally many runs.
  const int64_t total = p.batch * lattices * boxes * p.heads_q, most_boxes = most(least(total / (8 * pool.threads()), 16), 1);
  const int64_t runs = whole(divide_up(total, most_boxes), pool.threads());
  auto visit = [&](int64_t item, int thread) {
    Pieces pieces(pool.scratch(thread, static_cast<size_t>(size.bytes())));
    const Workspace w(p, shape.vectors, pieces);
    std::optional<Box> box;
    bool placed = false;
    for (int64_t i = item * total / runs, end = (item + 1) * total / runs; i < end; i++) {
      // Heads of a box one after the other: their rows lie side by side in memory.
      const int64_t head = i % p.heads_q, index = i / p.heads_q % boxes, rest = i / p.heads_q / boxes;
      if (!box || head == 0) placed = box.emplace(p, rest % lattices, p.dim_v).place(shape, index, rest / lattices);
      if (!placed) continue;
      box->choose(head);
      // The next box is that of the next head, or of the first one further on.
      const int64_t next = (head + 1) % p.heads_q, tokens = next ? 0 : shape.tile[2] * p.axis[2].dilation, group = p.heads_q / p.heads_kv;
      auto keys = [&](const NeighborhoodTensor& t) {
        return (next / group - head / group) * t.sh + (tokens + Later::newest(p.axis[2])) * t.sp[2];
      };
      const Later::Rows later[] = {{p.q, p.dim, (next - head) * p.q.sh + tokens * p.q.sp[2]},
                                   {p.out, p.dim_v, 0},
                                   {p.k, p.dim, keys(p.k)},
                                   {p.v, p.dim_v, keys(p.v)}};
      if (shape.vectors == 1) run_box<1>(*box, later, w);
      else if (shape.vectors == 2) run_box<2>(*box, later, w);
      else run_box<3>(*box, later, w);
    }
  };
  pool.run(runs, visit, cancel);
}

template <>
void neighborhood_tile_shape<kIsa>(const NeighborhoodParams& p, int64_t tile[3]) {
  const TileShape shape = choose_tile(p);
  for (int a = 0; a < 3; a++) tile[a] = shape.tile[a];
}

}  // namespace fovea::cpu
