// Neighborhood attention by shifted rows, for small windows with stride 1 along the last axis.
//
// Lanes are kLanes neighbouring queries of a row. With K and V packed channel by channel, [d][x], key number j of every lane's window lies
// at x + j: one load of a row shifted by j. So every pair that is computed is one that is seen; a tile of queries against the union of its
// windows computes twice as many (7 x 7 windows, 4 x 4 tiles). At the borders windows stop moving: there the load is followed by a
// permutation, the same for all keys of a column of lanes. Four query rows share the loads of the key rows that they all see.
#include "cpu/neighborhood_shift.h"

#include "core/float_mode.h"
#include "cpu/neighborhood.h"

namespace fovea::cpu {
namespace {

// A column of lanes: where its windows begin.
struct Column {
  int64_t first, begin;  // of lane 0: query, and column of its first key
  bool moved, cut;       // windows that do not follow their lane; causal windows cut at the left border
  alignas(64) int32_t index[kLanes], keys[kLanes];

  void set(const NeighborhoodAxis& a, int64_t length, int64_t x0) {
    first = x0, begin = window_of(a, length, x0).begin;
    moved = cut = false;
    for (int i = 0; i < kLanes; i++) {
      Range r = window_of(a, length, least(x0 + i, length - 1));
      index[i] = static_cast<int32_t>(r.begin - begin);
      keys[i] = static_cast<int32_t>(r.end - r.begin);
      moved |= index[i] != i;
      cut |= r.end - r.begin < a.kernel;
    }
  }
};

// Key rows seen by the same query rows of a tile.
struct RowGroup {
  int32_t first, end;         // query rows
  int32_t from, count, rows;  // key vectors in the tile's lists; key rows
};

constexpr int kGroupKeys = 256;

struct Workspace {
  float *k, *v, *q, *scores, *out, *bias;
  int64_t *key, *value;  // of every key vector of a tile: where it lies in k and v for a column that begins at 0
  RowGroup* groups;
  Column* columns;

  int64_t cut(const NeighborhoodParams& p, const Ring& ring, int64_t bias_floats, float* base) {
    int64_t at = 0;
    auto take = [&](int64_t n) {
      float* here = base + at;
      at += whole(n, 16);
      return here;
    };
    k = take(ring.floats(p.dim)), v = take(ring.floats(p.dim_v));
    q = take(kRows * p.dim * kLanes), out = take(kRows * p.dim_v * kLanes);
    scores = take(kRows * p.axis[0].kernel * p.axis[1].kernel * p.axis[2].kernel * kLanes);
    bias = take(bias_floats);
    const int64_t rows = p.axis[0].kernel * ring.slots[1];
    key = reinterpret_cast<int64_t*>(take(2 * rows * p.axis[2].kernel)),
    value = reinterpret_cast<int64_t*>(take(2 * rows * p.axis[2].kernel));
    groups = reinterpret_cast<RowGroup*>(take(rows * sizeof(RowGroup) / 4));
    columns = reinterpret_cast<Column*>(take(divide_up(group_length(p.axis[2], 0), kLanes) * sizeof(Column) / 4));
    return at * 4;
  }
};

// Bias of the lanes of a column for every difference along the outer axes and every key j: [d0][d1][j] vectors.
struct BiasColumns {
  int64_t outer[2], floats;  // floats of one (head, column)

  explicit BiasColumns(const NeighborhoodParams& p) {
    outer[0] = 2 * p.axis[0].kernel - 1, outer[1] = 2 * p.axis[1].kernel - 1;
    floats = p.rpb ? outer[0] * outer[1] * p.axis[2].kernel * kLanes : 0;
  }
  void fill(const NeighborhoodParams& p, int64_t length, int64_t head, const Column& c, float* to) const {
    const int64_t kernel = p.axis[2].kernel, row = 2 * kernel - 1;
    const float* table = p.rpb + head * outer[0] * outer[1] * row;
    for (int64_t o = 0; o < outer[0] * outer[1]; o++)
      for (int64_t j = 0; j < kernel; j++)
        for (int i = 0; i < kLanes; i++) {
          const int64_t at = c.begin + c.index[i] + j - least(c.first + i, length - 1) + kernel - 1;
          *to++ = at >= 0 && at < row ? table[o * row + at] * kLog2E : 0;
        }
  }
};

template <class T>
class Unit {
 public:
  Unit(const NeighborhoodParams& p, const Ring& ring, const BiasColumns& bias, const Workspace& w, int64_t batch, int64_t head_kv,
       int64_t lattice)
      : p_(p), ring_(ring), bias_(bias), w_(w), batch_(batch), head_kv_(head_kv), l_(p, lattice) {
    columns_ = divide_up(l_.length[2], kLanes);
    for (int64_t c = 0; c < columns_; c++) w_.columns[c].set(p.axis[2], l_.length[2], c * kLanes);
  }

  // Tiles [first, end) of the lattice, numbered plane by plane.
  void run(int64_t first, int64_t end) {
    const int64_t tiles_y = divide_up(group_length(p_.axis[1], 0), kRows), group = p_.heads_q / p_.heads_kv;
    if (p_.rpb)
      for (int64_t h = 0; h < group; h++)
        for (int64_t c = 0; c < columns_; c++) bias_.fill(p_, l_.length[2], head_kv_ * group + h, w_.columns[c], bias_of(h, c));
    for (int64_t t = first; t < end; t++) {
      z_ = t / tiles_y, y_ = t % tiles_y * kRows;
      if (z_ >= l_.length[0] || y_ >= l_.length[1]) continue;
      rows_ = static_cast<int>(least(kRows, l_.length[1] - y_));
      planes_ = window_of(p_.axis[0], l_.length[0], z_);
      for (int i = 0; i < rows_; i++) window_[i] = window_of(p_.axis[1], l_.length[1], y_ + i);
      pack_keys();
      group_rows();
      for (int64_t h = 0; h < group; h++)
        for (int64_t c = 0; c < columns_; c++) column(h, w_.columns[c], bias_of(h, c));
    }
  }

 private:
  float* bias_of(int64_t h, int64_t column) const { return w_.bias + (h * columns_ + column) * bias_.floats; }

  const T* row_of(const NeighborhoodTensor& t, int64_t head, int64_t z, int64_t y, int64_t x) const {
    return static_cast<const T*>(t.data) + batch_ * t.sb + head * t.sh + offset_of(p_, l_, t, z, y, x);
  }

  // Packs what the tile reads and no tile before it did.
  void pack_keys() {
    const int64_t ny = l_.length[1], last = (planes_.end - 1) * ny + window_[rows_ - 1].end;
    const int64_t needed = planes_.begin * ny + (p_.axis[0].length == 1 ? window_[0].begin : 0);
    for (packed_ = most(packed_, needed); packed_ < last; packed_++) {
      const int64_t z = packed_ / ny, y = packed_ % ny, slot = ring_.slot(z, y), dilation = p_.axis[2].dilation;
      const int64_t ahead = p_.axis[1].dilation;
      pack_columns<T>(row_of(p_.k, head_kv_, z, y, 0), dilation * p_.k.sp[2], p_.k.sd, l_.length[2], p_.dim, 1.f, ring_.pitch,
                      w_.k + slot * p_.dim * ring_.pitch, ahead * p_.k.sp[1]);
      pack_columns<T>(row_of(p_.v, head_kv_, z, y, 0), dilation * p_.v.sp[2], p_.v.sd, l_.length[2], p_.dim_v, 1.f, ring_.pitch,
                      w_.v + slot * p_.dim_v * ring_.pitch, ahead * p_.v.sp[1]);
    }
  }

  // Lists the key vectors of the tile in order, those of equal query rows together.
  void group_rows() {
    const int32_t kernel = static_cast<int32_t>(p_.axis[2].kernel);
    RowGroup* g = nullptr;
    int64_t n = 0;
    groups_ = 0;
    for (int64_t z = planes_.begin; z < planes_.end; z++)
      for (int64_t y = window_[0].begin; y < window_[rows_ - 1].end; y++) {
        int32_t first = 0, end = rows_;
        while (first < rows_ && window_[first].end <= y) first++;
        while (end > first && window_[end - 1].begin > y) end--;
        if (first == end) continue;
        if (!g || first != g->first || end != g->end || g->count + kernel > kGroupKeys) {
          g = &w_.groups[groups_++];
          *g = {first, end, static_cast<int32_t>(n), 0, 0};
        }
        g->count += kernel, g->rows++;
        const int64_t slot = ring_.slot(z, y) * ring_.pitch;
        for (int64_t j = 0; j < kernel; j++, n++) w_.key[n] = slot * p_.dim + j, w_.value[n] = slot * p_.dim_v + j;
      }
  }

  template <class F>
  static void with_rows(int rows, bool moved, F&& f) {
    auto pick = [&]<int A>() { moved ? f.template operator()<A, true>() : f.template operator()<A, false>(); };
    if (rows == 1) pick.template operator()<1>();
    else if (rows == 2) pick.template operator()<2>();
    else if (rows == 3) pick.template operator()<3>();
    else pick.template operator()<4>();
  }

  void column(int64_t h, const Column& c, const float* bias) {
    const int64_t head = head_kv_ * (p_.heads_q / p_.heads_kv) + h, lanes = least(kLanes, l_.length[2] - c.first);
    const int64_t q_pitch = p_.dim * kLanes, out_pitch = p_.dim_v * kLanes, dilation = p_.axis[2].dilation;
    const int64_t score_pitch = p_.axis[0].kernel * p_.axis[1].kernel * p_.axis[2].kernel * kLanes;
    const vi index = load(c.index);
    for (int i = 0; i < rows_; i++)
      pack_columns<T>(row_of(p_.q, head, z_, y_ + i, c.first), dilation * p_.q.sp[2], p_.q.sd, lanes, p_.dim, p_.scale * kLog2E, kLanes,
                      w_.q + i * q_pitch, kLanes * dilation * p_.q.sp[2]);
    int filled[kRows] = {};
    for (const RowGroup* at = w_.groups; at < w_.groups + groups_; at++) {
      const RowGroup& g = *at;
      const float* keys[kGroupKeys];
      float* scores[kRows];
      for (int i = 0; i < g.count; i++) keys[i] = w_.k + w_.key[g.from + i] + c.begin;
      for (int a = g.first; a < g.end; a++)
        scores[a - g.first] = w_.scores + a * score_pitch + int64_t{filled[a]} * kLanes, filled[a] += g.count;
      with_rows(g.end - g.first, c.moved, [&]<int A, bool kMoved>() {
        score_rows<A, kMoved>(w_.q + g.first * q_pitch, q_pitch, keys, g.count, ring_.pitch, p_.dim, index, scores);
      });
    }
    vf inverse[kRows];
    for (int i = 0; i < rows_; i++) inverse[i] = weigh(c, head, i, filled[i], bias, w_.scores + i * score_pitch);
    for (int64_t i = 0; i < rows_ * p_.dim_v; i++) store(w_.out + i * kLanes, zero());
    for (int& n : filled) n = 0;
    for (const RowGroup* at = w_.groups; at < w_.groups + groups_; at++) {
      const RowGroup& g = *at;
      const float *values[kGroupKeys], *weights[kRows];
      for (int i = 0; i < g.count; i++) values[i] = w_.v + w_.value[g.from + i] + c.begin;
      for (int a = g.first; a < g.end; a++)
        weights[a - g.first] = w_.scores + a * score_pitch + int64_t{filled[a]} * kLanes, filled[a] += g.count;
      with_rows(g.end - g.first, c.moved, [&]<int A, bool kMoved>() {
        value_rows<A, kMoved>(weights, values, g.count, ring_.pitch, p_.dim_v, index, w_.out + g.first * out_pitch, out_pitch);
      });
    }
    for (int i = 0; i < rows_; i++) write_row(head, i, c.first, static_cast<int>(lanes), inverse[i], w_.out + i * out_pitch);
  }

  // Scores of one query row to weights; gives 1 / their sum and writes lse.
  __attribute__((noinline)) vf weigh(const Column& c, int64_t head, int row, int count, const float* bias, float* scores) {
    if (p_.rpb) add_bias(row, bias, scores);
    if (c.cut) {
      const vf hidden = set1(-__builtin_inff());
      for (int i = 0, j = 0; i < count; i++, j = j + 1 == p_.axis[2].kernel ? 0 : j + 1)
        store(scores + i * kLanes, select(set1(j) < load(c.keys), load(scores + i * kLanes), hidden));
    }
    vf top[2] = {set1(kLowest), set1(kLowest)}, sum[2] = {zero(), zero()};
    int n = 0;
    for (; n + 2 <= count; n += 2) {
      top[0] = max(top[0], load(scores + n * kLanes));
      top[1] = max(top[1], load(scores + (n + 1) * kLanes));
    }
    if (n < count) top[0] = max(top[0], load(scores + n * kLanes));
    const vf maximum = max(top[0], top[1]);
    const Exp2Constants* constants = exp2_constants();
    auto weight = [&](int i) {
      const vf e = exp2_weight<Words::F32>(load(scores + i * kLanes) - maximum, constants);
      store(scores + i * kLanes, e);
      return e;
    };
    for (n = 0; n + 2 <= count; n += 2) sum[0] = sum[0] + weight(n), sum[1] = sum[1] + weight(n + 1);
    if (n < count) sum[0] = sum[0] + weight(n);
    const vf total = sum[0] + sum[1];
    if (p_.lse) {
      const vf lse = (maximum + log_positive(total) * kLog2E) * kLn2;
      const int64_t line = (batch_ * p_.axis[0].length + l_.token(p_, 0, z_)) * p_.axis[1].length + l_.token(p_, 1, y_ + row);
      for (int64_t i = 0; i < kLanes && c.first + i < l_.length[2]; i++)
        p_.lse[(line * p_.axis[2].length + l_.token(p_, 2, c.first + i)) * p_.heads_q + head] = lse[i];
    }
    return set1(1.f) / total;
  }

  void add_bias(int row, const float* bias, float* scores) const {
    const int64_t kernel = p_.axis[2].kernel;
    for (int64_t z = planes_.begin; z < planes_.end; z++)
      for (int64_t y = window_[row].begin; y < window_[row].end; y++) {
        const int64_t from = (z - z_ + p_.axis[0].kernel - 1) * bias_.outer[1] + y - (y_ + row) + p_.axis[1].kernel - 1;
        const float* line = bias + from * kernel * kLanes;
        for (int64_t j = 0; j < kernel; j++, scores += kLanes) store(scores, load(scores) + load(line + j * kLanes));
      }
  }

  __attribute__((noinline)) void write_row(int64_t head, int row, int64_t x0, int lanes, vf factor, const float* from) {
    T* to = const_cast<T*>(row_of(p_.out, head, z_, y_ + row, x0));
    const int64_t step = p_.axis[2].dilation * p_.out.sp[2];
    alignas(64) float scale[kLanes];
    store(scale, factor);
    for (int64_t d0 = 0; d0 < p_.dim_v; d0 += kLanes) {
      vf v[kLanes];
      const int n = static_cast<int>(least(p_.dim_v - d0, kLanes));
      load_rows([&](int i) { return from + (d0 + i) * kLanes; }, n, v);
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++)
        if (i < lanes) store_row(to + i * step + d0 * p_.out.sd, p_.out.sd, n, v[i] * scale[i]);
    }
  }

  const NeighborhoodParams& p_;
  const Ring& ring_;
  const BiasColumns& bias_;
  const Workspace& w_;
  const int64_t batch_, head_kv_;
  const Lattice l_;
  int64_t columns_, packed_ = 0;  // rows packed so far, numbered plane by plane
  int64_t z_ = 0, y_ = 0;
  int rows_ = 0;
  int64_t groups_ = 0;
  Range planes_{}, window_[kRows]{};
};

template <class T>
void run(const NeighborhoodParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const int64_t lattices = Lattice::count(p), whole_units = p.batch * p.heads_kv * lattices;
  if (whole_units == 0) return;
  const Ring ring(p);
  const BiasColumns bias(p);
  const int64_t tiles = group_length(p.axis[0], 0) * divide_up(group_length(p.axis[1], 0), kRows);
  // Every band packs the rows around it once more, so there are no more of them than the threads need; results do not depend on it.
  const int64_t least_units = pool.threads() == 1 ? 1 : 2 * pool.threads();
  const int64_t bands = most(1, least(divide_up(least_units, whole_units), tiles / 2)), of_band = divide_up(tiles, bands);
  const int64_t bias_floats = bias.floats * (p.heads_q / p.heads_kv) * divide_up(group_length(p.axis[2], 0), kLanes);
  const size_t bytes = static_cast<size_t>(Workspace{}.cut(p, ring, bias_floats, nullptr));
  auto visit = [&](int64_t item, int thread) {
    const int64_t band = item % bands, unit = item / bands;
    Workspace w;
    w.cut(p, ring, bias_floats, static_cast<float*>(pool.scratch(thread, bytes)));
    Unit<T>(p, ring, bias, w, unit / lattices / p.heads_kv, unit / lattices % p.heads_kv, unit % lattices)
        .run(band * of_band, least((band + 1) * of_band, tiles));
  };
  pool.run(whole_units * bands, visit, cancel);
}

}  // namespace

template <>
void neighborhood_shift<kIsa>(const NeighborhoodParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const FlushDenormals flush;
  if (p.dtype == DType::F32) run<float>(p, pool, cancel);
  else if (p.dtype == DType::F16) run<f16>(p, pool, cancel);
  else run<bf16>(p, pool, cancel);
}

}  // namespace fovea::cpu
