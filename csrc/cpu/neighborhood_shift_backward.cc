// Gradients of neighborhood attention for the calls that the shift kernel takes (neighborhood_shift.cc).
//
//   S = Q K,  dP = dO V                    lanes are neighbouring queries of a row, keys are read as shifted rows of channels
//   P = 2^(S - lse),  dS = P (dP - delta)
//   dQ += dS K,  dK += dS Q,  dV += P dO   lanes are channels (neighborhood_tokens.h)
//
// Either way every pair that is computed is one that is seen. A tile of query rows is walked along the last axis, one column of lanes at a
// time: its pairs are made, its queries take their dQ, and keys that no later query sees take their dK and dV. So few columns of pairs are
// kept. Volumes are walked plane of keys by plane. dK and dV are added up as neighborhood_sums.h says.
#include "core/float_mode.h"
#include "cpu/neighborhood.h"
#include "cpu/neighborhood_sums.h"
#include "cpu/neighborhood_tokens.h"
#include "cpu/pieces.h"

namespace fovea::cpu {
namespace {

// What the units of a call have in common.
struct Plan {
  const NeighborhoodParams& p;
  const NeighborhoodGrads& g;
  Ring ring;
  BiasColumns bias;
  Bands bands;
  int64_t group, columns;           // query heads of a key head; columns of lanes of a row
  int64_t kept;                     // columns whose pairs are kept
  int64_t row_pairs, column_pairs;  // pairs of a query row with a row of keys, and of all query rows; of a column of lanes
  int64_t pitch, row_tokens;        // floats of a token, of a row of them

  Plan(const NeighborhoodParams& params, const NeighborhoodGrads& grads)
      : p(params), g(grads), ring(p), bias(p), bands(p, Bands::axis_of(p) == 1 ? kRows : 1, g.drpb != nullptr, true) {
    group = p.heads_q / p.heads_kv, columns = divide_up(group_length(p.axis[2], 0), kLanes);
    kept = least(columns, 1 + divide_up(2 * p.axis[2].kernel, kLanes));  // a key is seen from fewer than 2 kernel queries
    row_pairs = p.axis[2].kernel * kLanes, column_pairs = ((kRows - 1) * p.axis[1].kernel + ring.slots[1]) * row_pairs;
    pitch = whole(most(p.dim, p.dim_v), 16), row_tokens = row_pitch(group_length(p.axis[2], 0), pitch);
  }
};

// kRows rows of keys: the query rows that are added to them.
struct KeyBlock {
  Source sources[kRows];
  int64_t count;
};

struct Workspace {
  float *k, *v;                   // rings of keys: channels apart
  float *k_tokens, *dk, *dv;      // rings of keys: rows of tokens
  float *q, *dout;                // of the tile: [column][query row][d][lane]
  float *q_tokens, *dout_tokens;  // of the tile: rows of tokens
  float *dq, *out;                // rows of tokens; out: of one query row
  float *lse, *delta;             // [query row][column][lane]
  float *weights, *grads;         // P and dS: [kept column][query row][row of its window][j][lane]
  float *bias, *dbias;            // [query head][column], see BiasColumns
  Steps *of_queries, *of_keys;    // of every place of the last axis
  Step* steps;
  int64_t* slots;  // of the rows of keys of a plane of the tile
  RowGroup* groups;
  Source* key_sources;
  KeyBlock* blocks;

  Workspace(const Plan& plan, Pieces& pieces) {
    const NeighborhoodParams& p = plan.p;
    const Ring& ring = plan.ring;
    const int64_t n = group_length(p.axis[2], 0), lanes = plan.columns * kLanes, tile_rows = kRows * plan.row_tokens;
    k = pieces.take(ring.floats(p.dim)), v = pieces.take(ring.floats(p.dim_v));
    for (float** tokens : {&k_tokens, &dk, &dv}) *tokens = pieces.take(ring.slots[0] * ring.slots[1] * plan.row_tokens);
    q = pieces.take(kRows * p.dim * lanes), dout = pieces.take(kRows * p.dim_v * lanes);
    q_tokens = pieces.take(tile_rows), dout_tokens = pieces.take(tile_rows);
    dq = pieces.take(tile_rows), out = pieces.take(plan.row_tokens);
    lse = pieces.take(kRows * lanes), delta = pieces.take(kRows * lanes);
    weights = pieces.take(plan.kept * plan.column_pairs), grads = pieces.take(plan.kept * plan.column_pairs);
    bias = pieces.take(plan.group * plan.columns * plan.bias.floats), dbias = pieces.take(plan.group * plan.columns * plan.bias.floats);
    of_queries = pieces.take<Steps>(n), of_keys = pieces.take<Steps>(n), steps = pieces.take<Step>(2 * n * p.axis[2].kernel);
    const int64_t most_rows = ring.slots[1];
    slots = pieces.take<int64_t>(most_rows), groups = pieces.take<RowGroup>(most_rows);
    key_sources = pieces.take<Source>(most_rows), blocks = pieces.take<KeyBlock>(divide_up(most_rows, kRows));
  }
};

class Unit {
 public:
  Unit(const Plan& plan, const Workspace& w, int64_t unit, float* sums)
      : plan_(plan),
        p_(plan.p),
        ring_(plan.ring),
        w_(w),
        band_(unit % plan.bands.count),
        l_(p_, unit / plan.bands.count % plan.bands.lattices),
        n_(l_.length[2]),
        rows_of_{p_, l_, unit / plan.bands.count / plan.bands.lattices / p_.heads_kv},
        head_kv_(unit / plan.bands.count / plan.bands.lattices % p_.heads_kv),
        sums_(plan.bands, l_, plan.bands.keys(l_.length[plan.bands.axis], band_), sums) {}

  void run() {
    auto pair = [&](int64_t x, int64_t j) { return x / kLanes % plan_.kept * plan_.column_pairs + j * kLanes + x % kLanes; };
    list_steps(p_.axis[2], ring_, n_, plan_.pitch, pair, w_.steps, w_.of_queries, w_.of_keys);
    const int64_t bias = plan_.columns * plan_.bias.floats;
    if (p_.rpb) {
      for (int64_t h = 0; h < plan_.group; h++)
        for (int64_t c = 0; c < plan_.columns; c++)
          plan_.bias.fill(p_, ring_, n_, head_kv_ * plan_.group + h, c * kLanes, w_.bias + h * bias + c * plan_.bias.floats);
      __builtin_memset(w_.dbias, 0, static_cast<size_t>(plan_.group * bias) * 4);
    }
    const int64_t of_plane = divide_up(group_length(p_.axis[1], 0), kRows);
    const int64_t tiles = plan_.bands.axis == 0 ? plan_.bands.length * of_plane : plan_.bands.length / kRows;
    for (int64_t t = band_ * tiles; t < least((band_ + 1) * tiles, group_length(p_.axis[0], 0) * of_plane); t++) {
      if (!tile_.place(p_, l_, t)) continue;
      pack_keys();
      list_rows();
      for (int64_t h = 0; h < plan_.group; h++) {
        pack_queries(head_kv_ * plan_.group + h);
        for (int64_t z = tile_.planes.begin; z < tile_.planes.end; z++) plane(h, z);
        for (int i = 0; i < tile_.rows; i++)
          write_row(p_.dtype, const_cast<char*>(rows_of_.at(plan_.g.dq, head_kv_ * plan_.group + h, tile_.z, tile_.y + i)),
                    rows_of_.step(plan_.g.dq), plan_.g.dq.sd, n_, p_.dim, &p_.scale, 0, w_.dq + i * plan_.row_tokens, plan_.pitch);
      }
    }
    finish_keys(packed_);
    if (!plan_.g.drpb) return;
    __builtin_memset(sums_.bias, 0, static_cast<size_t>(plan_.bands.bias) * 4);
    for (int64_t h = 0; h < plan_.group; h++) fold_bias(w_.dbias + h * bias, sums_.bias + h * bias_size(p_));
  }

 private:
  // Packs what the tile reads and no tile before it did.
  void pack_keys() {
    const Range keys = tile_.keys(p_, l_);
    if (!packed_) finished_ = keys.begin;
    finish_keys(keys.begin);
    for (packed_ = most(packed_, keys.begin); packed_ < keys.end; packed_++) {
      const int64_t z = packed_ / l_.length[1], y = packed_ % l_.length[1], slot = ring_.slot(z, y);
      for (float* sums : {w_.dk, w_.dv}) __builtin_memset(sums + slot * plan_.row_tokens, 0, static_cast<size_t>(plan_.row_tokens) * 4);
      read_row(p_.dtype, rows_of_.at(p_.k, head_kv_, z, y), rows_of_.step(p_.k), p_.k.sd, n_, p_.dim, 1.f,
               w_.k_tokens + slot * plan_.row_tokens, plan_.pitch);
      rows_of_.pack(ring_, p_.k, head_kv_, 1, z, y, p_.dim, w_.k + slot * ring_.pitch * p_.dim, 0);
      rows_of_.pack(ring_, p_.v, head_kv_, 1, z, y, p_.dim_v, w_.v + slot * ring_.pitch * p_.dim_v, 0);
    }
  }

  // Hands out dK and dV of the rows before `end`, which are complete.
  void finish_keys(int64_t end) {
    for (; finished_ < end; finished_++) {
      const int64_t at[3] = {finished_ / l_.length[1], finished_ % l_.length[1], 0}, from = ring_.slot(at[0], at[1]) * plan_.row_tokens;
      const bool shared = plan_.bands.shares(l_.length[plan_.bands.axis], at[plan_.bands.axis]);
      const float one = 1;
      auto finish = [&](const NeighborhoodTensor& t, int64_t dim, const float* sums, float* partial, int64_t pitch) {
        if (shared)
          read_row(DType::F32, reinterpret_cast<const char*>(sums), plan_.pitch * 4, 1, n_, dim, 1.f,
                   partial + sums_.row(plan_.bands, at) * pitch, pitch);
        else
          write_row(p_.dtype, const_cast<char*>(rows_of_.at(t, head_kv_, at[0], at[1])), rows_of_.step(t), t.sd, n_, dim, &one, 0, sums,
                    plan_.pitch);
      };
      finish(plan_.g.dk, p_.dim, w_.dk + from, sums_.k, plan_.bands.pitch_k);
      finish(plan_.g.dv, p_.dim_v, w_.dv + from, sums_.v, plan_.bands.pitch_v);
    }
  }

  // Where the pairs of query row a with row r of keys are: at pairs_of(a) + r * row_pairs. They do not meet those of the next row, which
  // sees no keys before those of this one.
  int64_t pairs_of(int64_t a) const { return a * p_.axis[1].kernel * plan_.row_pairs; }

  // What rows of keys of a plane of the tile meet; they are numbered from the first that is seen.
  void list_rows() {
    const int64_t y0 = tile_.window[0].begin;
    rows_ = tile_.window[tile_.rows - 1].end - y0, groups_ = 0;
    RowGroup* g = nullptr;
    for (int64_t r = 0; r < rows_; r++) {
      const Range queries = tile_.queries(y0 + r);
      const int32_t first = static_cast<int32_t>(queries.begin), end = static_cast<int32_t>(queries.end);
      if (!g || first != g->first || end != g->end) {
        g = &w_.groups[groups_++];
        *g = {first, end, r, 0};
      }
      g->count++;
      w_.key_sources[r] = {0, r * plan_.row_pairs, first, end};
    }
    for (int64_t r = 0; r < rows_; r += kRows) {
      KeyBlock& block = w_.blocks[r / kRows];
      block.count = 0;
      for (int a = 0; a < tile_.rows; a++) {
        const int64_t first = most(tile_.window[a].begin - y0 - r, 0), end = least(tile_.window[a].end - y0 - r, kRows);
        if (first < end)
          block.sources[block.count++] = {a * plan_.row_tokens, pairs_of(a), static_cast<int32_t>(first), static_cast<int32_t>(end)};
      }
    }
  }

  void pack_queries(int64_t head) {
    const int64_t lanes = plan_.columns * kLanes, row = plan_.row_tokens;
    for (int i = 0; i < tile_.rows; i++) {
      float *q = w_.q_tokens + i * row, *dout = w_.dout_tokens + i * row;
      auto read = [&](const NeighborhoodTensor& t, int64_t dim, float factor, float* to) {
        read_row(p_.dtype, rows_of_.at(t, head, tile_.z, tile_.y + i), rows_of_.step(t), t.sd, n_, dim, factor, to, plan_.pitch);
      };
      read(p_.q, p_.dim, p_.scale, q), read(plan_.g.dout, p_.dim_v, 1.f, dout), read(p_.out, p_.dim_v, 1.f, w_.out);
      auto pack = [&](const float* tokens, int64_t x0, int64_t dim, float factor, float* to) {
        const char* from[kLanes];
        for (int lane = 0; lane < kLanes; lane++)
          from[lane] = reinterpret_cast<const char*>(tokens + least(x0 + lane, n_ - 1) * plan_.pitch);
        pack_lanes(DType::F32, from, 1, dim, factor, to + (x0 * kRows + i * kLanes) * dim, kLanes);
      };
      const int64_t line =
          (rows_of_.batch * p_.axis[0].length + l_.token(p_, 0, tile_.z)) * p_.axis[1].length + l_.token(p_, 1, tile_.y + i);
      for (int64_t x0 = 0; x0 < n_; x0 += kLanes) {
        pack(q, x0, p_.dim, kLog2E, w_.q), pack(dout, x0, p_.dim_v, 1.f, w_.dout);
        vf lse{}, delta = products(dout, x0);
        for (int64_t lane = 0; lane < least(kLanes, n_ - x0); lane++) {
          const int64_t at = (line * p_.axis[2].length + l_.token(p_, 2, x0 + lane)) * p_.heads_q + head;
          lse[lane] = p_.lse[at] * kLog2E;
          if (plan_.g.dlse) delta[lane] -= plan_.g.dlse[at];
        }
        store(w_.lse + i * lanes + x0, lse), store(w_.delta + i * lanes + x0, delta);
      }
    }
  }

  // Products of rows of tokens with those of out, in lanes.
  vf products(const float* tokens, int64_t x0) const {
    alignas(64) float sums[kLanes][kLanes];
    for (int lane = 0; lane < kLanes; lane++) {
      const int64_t at = least(x0 + lane, n_ - 1) * plan_.pitch;
      vf sum = zero();
      for (int64_t d = 0; d < p_.dim_v; d += kLanes) sum = fma(load(tokens + at + d), load(w_.out + at + d), sum);
      store(sums[lane], sum);
    }
    vf v[kLanes];
    load_turned([&](int lane) { return sums[lane]; }, v);
    FOVEA_UNROLL
    for (int width = kLanes / 2; width > 0; width /= 2) FOVEA_UNROLL
    for (int i = 0; i < width; i++) v[i] = v[i] + v[i + width];
    return v[0];
  }

  // All pairs of the tile with the keys of plane z, for query head h of the group.
  void plane(int64_t h, int64_t z) {
    for (int64_t r = 0; r < rows_; r++) {
      w_.slots[r] = ring_.slot(z, tile_.window[0].begin + r);
      w_.key_sources[r].row = w_.slots[r] * plan_.row_tokens;
    }
    const int64_t held = z > tile_.planes.begin ? tile_.rows : 0;
    Product dq{w_.grads, pairs_of(1), {}, 0, held, tile_.rows, w_.k_tokens, w_.key_sources, rows_, p_.dim, plan_.pitch};
    for (int a = 0; a < tile_.rows; a++) dq.sums[a] = w_.dq + a * plan_.row_tokens;
    for (int64_t x0 = 0, done = 0; x0 < n_; x0 += kLanes) {
      make_pairs(h, z, x0);
      const int64_t x1 = least(x0 + kLanes, n_), ready = done;
      add_tokens(dq, w_.of_queries, x0, x1);
      while (done < n_ && w_.of_keys[done].first + w_.of_keys[done].count <= x1) done++;
      for (int64_t r = 0; r < rows_; r += kRows) {
        add_to_keys(w_.grads, w_.q_tokens, p_.dim, w_.dk, r, ready, done);
        add_to_keys(w_.weights, w_.dout_tokens, p_.dim_v, w_.dv, r, ready, done);
      }
    }
  }

  // From the row of keys `row` on.
  void add_to_keys(const float* pairs, const float* tokens, int64_t dim, float* sums, int64_t row, int64_t from, int64_t to) const {
    const KeyBlock& block = w_.blocks[row / kRows];
    const int64_t rows = least(kRows, rows_ - row), pitch = plan_.row_pairs;
    Product product{pairs + row * pitch, pitch, {}, 0, rows, rows, tokens, block.sources, block.count, dim, plan_.pitch};
    for (int64_t i = 0; i < rows; i++) product.sums[i] = sums + w_.slots[row + i] * plan_.row_tokens;
    add_tokens(product, w_.of_keys, from, to);
  }

  // P and dS of the column of lanes that begins at query x0.
  void make_pairs(int64_t h, int64_t z, int64_t x0) {
    const int64_t kernel = p_.axis[2].kernel, column = x0 / kLanes, from = column % plan_.kept * plan_.column_pairs;
    for (const RowGroup* g = w_.groups; g < w_.groups + groups_; g++) {
      with_count<kRows>(g->end - g->first, [&]<int A>() {
        float *weights[A], *grads[A];
        for (int a = 0; a < A; a++) {
          const int64_t at = from + pairs_of(g->first + a) + g->from * plan_.row_pairs;
          weights[a] = w_.weights + at, grads[a] = w_.grads + at;
        }
        const float *q = w_.q + (x0 * kRows + g->first * kLanes) * p_.dim, *dout = w_.dout + (x0 * kRows + g->first * kLanes) * p_.dim_v;
        const int64_t* slots = w_.slots + g->from;
        score_rows<A>(QueriesByRow{q, p_.dim * kLanes}, {w_.k + x0, slots, kernel, ring_.pitch, p_.dim}, g->count, weights);
        score_rows<A>(QueriesByRow{dout, p_.dim_v * kLanes}, {w_.v + x0, slots, kernel, ring_.pitch, p_.dim_v}, g->count, grads);
      });
      for (int64_t a = g->first; a < g->end; a++) {
        float* bias = nullptr;
        if (p_.rpb) {
          const int64_t y = tile_.window[0].begin + g->from - (tile_.y + a);
          bias = w_.bias + (h * plan_.columns + column) * plan_.bias.floats +
                 ((z - tile_.z + p_.axis[0].kernel - 1) * plan_.bias.outer[1] + y + p_.axis[1].kernel - 1) * plan_.row_pairs;
        }
        differentiate(a, x0, from + pairs_of(a) + g->from * plan_.row_pairs, g->count * kernel, bias);
      }
    }
  }

  // Scores to weights, and products dP to dS, of one query row with neighbouring rows of keys, which have neighbouring biases.
  void differentiate(int64_t a, int64_t x0, int64_t from, int64_t count, const float* bias) const {
    float *weights = w_.weights + from, *grads = w_.grads + from, *dbias = bias ? w_.dbias + (bias - w_.bias) : nullptr;
    const int64_t at = a * plan_.columns * kLanes + x0;
    const vf lse = load(w_.lse + at), delta = load(w_.delta + at);
    const Exp2Constants* constants = exp2_constants();
    for (int64_t i = 0; i < count * kLanes; i += kLanes) {
      vf score = load(weights + i);
      if (bias) score = score + load(bias + i);
      const vf weight = exp2_weight<Words::F32>(score - lse, constants), ds = weight * (load(grads + i) - delta);
      store(weights + i, weight), store(grads + i, ds);
      if (bias) store(dbias + i, load(dbias + i) + ds);
    }
  }

  void fold_bias(const float* columns, float* table) const {
    const int64_t kernel = p_.axis[2].kernel, row = 2 * kernel - 1;
    each_pair(p_.axis[2], ring_, n_, [&](int64_t x, int64_t j, int64_t token) {
      const float* from = columns + x / kLanes * plan_.bias.floats + j * kLanes + x % kLanes;
      float* to = table + token - x + kernel - 1;
      for (int64_t o = 0; o < plan_.bias.outer[0] * plan_.bias.outer[1]; o++) to[o * row] += from[o * plan_.row_pairs];
    });
  }

  const Plan& plan_;
  const NeighborhoodParams& p_;
  const Ring& ring_;
  const Workspace& w_;
  const int64_t band_;
  const Lattice l_;
  const int64_t n_;  // tokens of a row
  const RowsOf rows_of_;
  const int64_t head_kv_;
  const Sums sums_;
  int64_t packed_ = 0, finished_ = 0;  // rows of keys packed so far and those that are complete, numbered plane by plane
  Tile tile_{};
  int64_t rows_ = 0, groups_ = 0;  // of keys in a plane of the tile
};

}  // namespace

template <>
void neighborhood_shift_backward<kIsa>(const NeighborhoodParams& p, const NeighborhoodGrads& g, ThreadPool& pool,
                                       const std::atomic<bool>* cancel) {
  const FlushDenormals flush;
  const Plan plan(p, g);
  Pieces size(nullptr);
  Workspace(plan, size);
  run_units(plan.bands, g, pool, cancel, [&](int64_t unit, int thread, float* sums) {
    Pieces pieces(pool.scratch(thread, static_cast<size_t>(size.bytes())));
    const Workspace w(plan, pieces);
    Unit(plan, w, unit, sums).run();
  });
}

}  // namespace fovea::cpu
