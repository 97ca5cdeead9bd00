// Neighborhood attention by shifted rows, for small windows with stride 1 along the last axis.
//
// Scores: lanes are kLanes neighbouring queries of a row. With K packed channel by channel, [d][x], key number j of every lane's window
// lies at x + j: one load of a row shifted by j. So every pair that is computed is one that is seen; a tile of queries against the union of
// its windows computes twice as many (7 x 7 windows, 4 x 4 tiles). kRows query rows share the loads of the key rows that they all see.
// Values: lanes are channels of rows of tokens (neighborhood_tokens.h), so V is copied as it lies and no pair is added that is not seen.
#include <algorithm>

#include "core/float_mode.h"
#include "cpu/neighborhood.h"
#include "cpu/neighborhood_tokens.h"
#include "cpu/pieces.h"

namespace fovea::cpu {
namespace {

// What the units of a call have in common.
struct Plan {
  const NeighborhoodParams& p;
  Ring ring;
  BiasColumns bias;
  int64_t group, columns;             // query heads of a key head; columns of lanes of a row
  int64_t row_scores;                 // floats of scores of a query row
  int64_t pitch, row_values, values;  // floats of a value, of a row of them, of a head's ring of them
  int64_t heads, parts;               // key heads of a unit, units that the key heads of a batch make
  int64_t tiles, bands, of_band;

  Plan(const NeighborhoodParams& params, int64_t threads) : p(params), ring(p), bias(p) {
    group = p.heads_q / p.heads_kv, columns = divide_up(group_length(p.axis[2], 0), kLanes);
    row_scores = p.axis[0].kernel * p.axis[1].kernel * p.axis[2].kernel * kLanes;
    pitch = whole(p.dim_v, 16), row_values = row_pitch(group_length(p.axis[2], 0), pitch);
    values = ring.slots[0] * ring.slots[1] * row_values;
    // Heads of a token are neighbours in memory, so a unit takes all whose rings fit the second cache. Fewer heads or bands of tiles give
    // every thread work; results do not depend on them. A band packs the rows around it once more.
    constexpr int64_t kRingBytes = 1200 << 10;
    const int64_t of_head = 4 * (ring.floats(p.dim) + values), all = p.batch * p.heads_kv * Lattice::count(p);
    heads = most(least(least(kRingBytes / of_head, p.heads_kv), all / threads), 1);
    parts = divide_up(p.heads_kv, heads);
    tiles = group_length(p.axis[0], 0) * divide_up(group_length(p.axis[1], 0), kRows);
    const int64_t whole_units = most(p.batch * parts * Lattice::count(p), 1), planes = group_length(p.axis[0], 0);
    const int64_t few = divide_up(threads, whole_units), many = threads == 1 ? 1 : divide_up(2 * threads, whole_units);
    const int64_t wanted = planes == 1 ? many : most(few, least(many, planes / p.axis[0].kernel));  // of less than a window of planes, few
    bands = most(1, least(wanted, tiles / 2)), of_band = divide_up(tiles, bands);
  }
  int64_t units() const { return p.batch * parts * Lattice::count(p) * bands; }
};

struct Workspace {
  float *k, *v;    // rings: channels apart, and rows of tokens
  float *q, *out;  // of a column of lanes: [d][query row][lane], rows of tokens
  float *scores, *bias;
  Steps* steps;  // of every query of a row
  Step* step;
  Source* rows;    // of keys of a tile
  int64_t* slots;  // theirs in the rings
  RowGroup* groups;

  Workspace(const Plan& plan, Pieces& pieces) {
    const NeighborhoodParams& p = plan.p;
    const Ring& ring = plan.ring;
    k = pieces.take(plan.heads * ring.floats(p.dim)), v = pieces.take(plan.heads * plan.values);
    q = pieces.take(kRows * p.dim * kLanes), out = pieces.take(kRows * kLanes * plan.pitch);
    bias = pieces.take(plan.heads * plan.group * plan.columns * plan.bias.floats);
    const int64_t most_rows = p.axis[0].kernel * ring.slots[1], n = group_length(p.axis[2], 0);
    scores = pieces.take((kRows - 1) * plan.row_scores + most_rows * p.axis[2].kernel * kLanes);
    steps = pieces.take<Steps>(n), step = pieces.take<Step>(n * p.axis[2].kernel);
    rows = pieces.take<Source>(most_rows), slots = pieces.take<int64_t>(most_rows);
    groups = pieces.take<RowGroup>(most_rows);
  }
};

class Unit {
 public:
  Unit(const Plan& plan, const Workspace& w, int64_t unit)
      : plan_(plan),
        p_(plan.p),
        ring_(plan.ring),
        w_(w),
        band_(unit % plan.bands),
        l_(p_, unit / plan.bands % Lattice::count(p_)),
        rows_of_{p_, l_, unit / plan.bands / Lattice::count(p_) / plan.parts} {
    const int64_t rest = unit / plan.bands / Lattice::count(p_);
    head_ = rest % plan.parts * plan.heads, heads_ = least(plan.heads, p_.heads_kv - head_);
  }

  void run() {
    auto weight = [](int64_t x, int64_t j) { return j * kLanes + x % kLanes; };
    list_steps(p_.axis[2], ring_, l_.length[2], plan_.pitch, weight, w_.step, w_.steps, nullptr);
    if (p_.rpb)
      for (int64_t h = 0; h < heads_ * plan_.group; h++)
        for (int64_t c = 0; c < plan_.columns; c++)
          plan_.bias.fill(p_, ring_, l_.length[2], head_ * plan_.group + h, c * kLanes, bias_of(h, c));
    const int64_t first = band_ * plan_.of_band, end = least(first + plan_.of_band, plan_.tiles);
    for (int64_t t = first; t < end; t++) {
      if (!tile_.place(p_, l_, t)) continue;
      pack_keys();
      group_keys();
      for (int64_t x0 = 0; x0 < l_.length[2]; x0 += kLanes)
        for (int64_t h = 0; h < heads_ * plan_.group; h++) column(h, x0);
    }
  }

 private:
  float* bias_of(int64_t h, int64_t column) const { return w_.bias + (h * plan_.columns + column) * plan_.bias.floats; }

  // Scores of a query row with row r of keys are r * kernel * kLanes floats from here. They do not meet those of the next query row, which
  // sees no keys before those of this one.
  float* scores_of(int row) const { return w_.scores + row * plan_.row_scores; }

  // Packs what the tile reads and no tile before it did.
  void pack_keys() {
    const Range keys = tile_.keys(p_, l_);
    for (packed_ = most(packed_, keys.begin); packed_ < keys.end; packed_++) {
      const int64_t z = packed_ / l_.length[1], y = packed_ % l_.length[1], slot = ring_.slot(z, y);
      rows_of_.pack(ring_, p_.k, head_, heads_, z, y, p_.dim, w_.k + slot * ring_.pitch * p_.dim, ring_.floats(p_.dim));
      const char* v = rows_of_.at(p_.v, head_, z, y);
      for (int64_t x0 = 0; x0 < l_.length[2]; x0 += kLanes)
        for (int64_t h = 0; h < heads_; h++)
          read_row(p_.dtype, v + h * p_.v.sh * element_bytes(p_.dtype) + x0 * rows_of_.step(p_.v), rows_of_.step(p_.v), p_.v.sd,
                   least(kLanes, l_.length[2] - x0), p_.dim_v, 1.f, w_.v + h * plan_.values + slot * plan_.row_values + x0 * plan_.pitch,
                   plan_.pitch);
    }
  }

  // Lists the rows of keys of the tile in order, and groups of them.
  void group_keys() {
    const int64_t kernel = p_.axis[2].kernel;
    RowGroup* g = nullptr;
    rows_ = groups_ = 0;
    for (int64_t y = tile_.window[0].begin; y < tile_.window[tile_.rows - 1].end; y++) {
      const Range queries = tile_.queries(y);
      if (queries.begin == queries.end) continue;
      const int32_t first = static_cast<int32_t>(queries.begin), end = static_cast<int32_t>(queries.end);
      if (!g || first != g->first || end != g->end) {
        g = &w_.groups[groups_++];
        *g = {first, end, rows_, 0};
      }
      int64_t slot = ring_.slot(tile_.planes.begin, y);
      for (int64_t z = tile_.planes.begin; z < tile_.planes.end; z++, slot = ring_.next_plane(slot), rows_++, g->count++) {
        w_.rows[rows_] = {slot * plan_.row_values, rows_ * kernel * kLanes, first, end};
        w_.slots[rows_] = slot;
      }
    }
  }

  // The column of lanes that begins at query x0, of query head h of the unit.
  void column(int64_t h, int64_t x0) {
    const int64_t head = head_ * plan_.group + h;
    const float* k = w_.k + h / plan_.group * ring_.floats(p_.dim) + x0;
    for (int i = 0; i < tile_.rows; i++) {
      const char *first = rows_of_.at(p_.q, head, tile_.z, tile_.y + i), *tokens[kLanes];
      for (int lane = 0; lane < kLanes; lane++) tokens[lane] = first + least(x0 + lane, l_.length[2] - 1) * rows_of_.step(p_.q);
      pack_lanes(p_.dtype, tokens, p_.q.sd, p_.dim, p_.scale * kLog2E, w_.q + i * kLanes, kRows * kLanes);
    }
    for (int i = 0; i < tile_.rows; i++) store(top_[i], set1(kLowest)), store(sum_[i], zero());
    for (const RowGroup* g = w_.groups; g < w_.groups + groups_; g++)
      with_count<kRows>(g->end - g->first, [&]<int A>() {
        float* scores[A];
        for (int a = 0; a < A; a++) scores[a] = scores_of(g->first + a) + g->from * p_.axis[2].kernel * kLanes;
        score_rows<A>(QueriesByChannel{w_.q + g->first * kLanes}, {k, w_.slots + g->from, p_.axis[2].kernel, ring_.pitch, p_.dim}, g->count,
                      scores, top_[g->first]);
      });
    const bool hides = p_.axis[2].causal && x0 < ring_.before;
    for (int i = 0; (p_.rpb || hides) && i < tile_.rows; i++) store(top_[i], change_scores(i, x0, hides, bias_of(h, x0 / kLanes)));
    const int64_t lanes = least(kLanes, l_.length[2] - x0);
    add_values(h, x0, lanes);
    for (int i = 0; i < tile_.rows; i++) {
      const vf sum = load(sum_[i]);
      if (p_.lse) write_lse(head, i, x0, (load(top_[i]) + log_positive(sum) * kLog2E) * kLn2);
      alignas(64) float inverse[kLanes];
      store(inverse, set1(1.f) / sum);
      write_row(p_.dtype, const_cast<char*>(rows_of_.at(p_.out, head, tile_.z, tile_.y + i)) + x0 * rows_of_.step(p_.out),
                rows_of_.step(p_.out), p_.out.sd, lanes, p_.dim_v, inverse, 1, w_.out + i * kLanes * plan_.pitch, plan_.pitch);
    }
  }

  // Weights times values, by shares of the rows of keys: their weights stay in the first cache from when they are made until the last query
  // of the column has taken them.
  void add_values(int64_t h, int64_t x0, int64_t lanes) {
    constexpr int64_t kMostWeights = (20 << 10) / kVectorBytes;
    Product p{w_.scores, plan_.row_scores, {}, 0, 0, 0, w_.v + h / plan_.group * plan_.values, w_.rows, 0, p_.dim_v, plan_.pitch};
    for (int a = 0; a < tile_.rows; a++) p.sums[a] = w_.out + a * kLanes * plan_.pitch;
    for (const Source* end = w_.rows + rows_; p.sources < end; p.sources += p.count, p.held = p.end) {
      int64_t vectors = 0;
      for (p.count = 0; p.sources + p.count < end; p.count++) {
        const Source& next = p.sources[p.count];
        vectors += (next.end - next.first) * p_.axis[2].kernel;
        if (vectors > kMostWeights && p.count) break;
      }
      for (int a = 0; a < tile_.rows; a++) {
        auto seen = [a](const Source& s) { return s.first <= a && a < s.end; };
        const Source *first = std::find_if(p.sources, p.sources + p.count, seen),
                     *last = std::find_if_not(first, p.sources + p.count, seen);
        weigh(a, scores_of(a) + (first - w_.rows) * p_.axis[2].kernel * kLanes, (last - first) * p_.axis[2].kernel);
      }
      p.first = p.sources->first, p.end = p.sources[p.count - 1].end;
      add_tokens(p, w_.steps + x0, 0, lanes);
    }
  }

  // Scores of a query row to weights.
  void weigh(int row, float* scores, int64_t count) {
    const vf top = load(top_[row]);
    vf sum[2] = {load(sum_[row]), zero()};
    const Exp2Constants* constants = exp2_constants();
    auto weight = [&](int64_t i) {
      const vf e = exp2_weight<Words::F32>(load(scores + i * kLanes) - top, constants);
      store(scores + i * kLanes, e);
      return e;
    };
    int64_t n = 0;
    for (; n + 2 <= count; n += 2) sum[0] = sum[0] + weight(n), sum[1] = sum[1] + weight(n + 1);
    if (n < count) sum[0] = sum[0] + weight(n);
    store(sum_[row], sum[0] + sum[1]);
  }

  // Adds the bias to the scores of a query row, and makes those that are not seen -inf; gives the highest.
  vf change_scores(int row, int64_t x0, bool hides, const float* bias) const {
    const RowGroup* seen = w_.groups;
    while (seen->end <= row) seen++;
    float* scores = scores_of(row) + seen->from * p_.axis[2].kernel * kLanes;
    const Range window = tile_.window[row];
    const int64_t kernel = p_.axis[2].kernel, count = (tile_.planes.end - tile_.planes.begin) * (window.end - window.begin) * kernel;
    if (p_.rpb) add_bias(row, bias, scores);
    const vf hidden = set1(-__builtin_inff());
    const vi first = set1(static_cast<int32_t>(x0 - ring_.before)) + iota();
    vf top = set1(kLowest);
    for (int64_t i = 0, j = 0; i < count; i++, j = j + 1 == kernel ? 0 : j + 1) {
      vf score = load(scores + i * kLanes);
      if (hides) score = select(first + static_cast<int32_t>(j) < vi{}, hidden, score), store(scores + i * kLanes, score);
      top = max(top, score);
    }
    return top;
  }

  void write_lse(int64_t head, int row, int64_t x0, vf lse) const {
    const int64_t line =
        (rows_of_.batch * p_.axis[0].length + l_.token(p_, 0, tile_.z)) * p_.axis[1].length + l_.token(p_, 1, tile_.y + row);
    for (int64_t i = 0; i < kLanes && x0 + i < l_.length[2]; i++)
      p_.lse[(line * p_.axis[2].length + l_.token(p_, 2, x0 + i)) * p_.heads_q + head] = lse[i];
  }

  void add_bias(int row, const float* bias, float* scores) const {
    const int64_t kernel = p_.axis[2].kernel;
    for (int64_t y = tile_.window[row].begin; y < tile_.window[row].end; y++)
      for (int64_t z = tile_.planes.begin; z < tile_.planes.end; z++) {
        const int64_t from = (z - tile_.z + p_.axis[0].kernel - 1) * plan_.bias.outer[1] + y - (tile_.y + row) + p_.axis[1].kernel - 1;
        const float* line = bias + from * kernel * kLanes;
        for (int64_t j = 0; j < kernel; j++, scores += kLanes) store(scores, load(scores) + load(line + j * kLanes));
      }
  }

  const Plan& plan_;
  const NeighborhoodParams& p_;
  const Ring& ring_;
  const Workspace& w_;
  const int64_t band_;
  const Lattice l_;
  const RowsOf rows_of_;
  int64_t head_, heads_;  // the first key head, their number
  int64_t packed_ = 0;    // rows of keys packed so far, numbered plane by plane
  Tile tile_{};
  int64_t rows_ = 0, groups_ = 0;                              // of keys in the tile
  alignas(64) float top_[kRows][kLanes], sum_[kRows][kLanes];  // of scores, of weights
};

}  // namespace

template <>
void neighborhood_shift<kIsa>(const NeighborhoodParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const FlushDenormals flush;
  if (p.batch * p.tokens * p.heads_q == 0) return;
  const Plan plan(p, pool.threads());
  Pieces size(nullptr);
  Workspace(plan, size);
  auto visit = [&](int64_t unit, int thread) {
    Pieces pieces(pool.scratch(thread, static_cast<size_t>(size.bytes())));
    const Workspace w(plan, pieces);
    Unit(plan, w, unit).run();
  };
  pool.run(plan.units(), visit, cancel);
}

}  // namespace fovea::cpu
