// A box of queries in lanes, the keys it visits in chunks, and the scores of a chunk: what forward and backward of the tile kernel share.
//
//   S^T [keys, queries] = K rows x Q^T
//
// K and V rows are read through row pointers in their natural layout (16-bit ones are widened per chunk). A vector of queries skips blocks
// of keys that none of it sees; in those that not all of it sees, a pair that does not see each other gets -inf.
#pragma once

#include "cpu/neighborhood_rows.h"

namespace fovea::cpu {
namespace {

constexpr int kChunkKeys = 96;

struct Box {
  const NeighborhoodParams& p;
  Lattice lattice;
  int64_t batch, head, head_kv;
  int count = 0;         // queries; lanes beyond repeat the last
  int64_t lo[3], hi[3];  // keys visited
  struct Seen {
    int64_t lo[3], hi[3];            // keys that any of a vector's queries sees
    int64_t full_lo[3], full_hi[3];  // keys that all of them see
  };
  Seen seen[kVectors];
  alignas(64) int32_t at[3][kVectors * kLanes], begin[3][kVectors * kLanes], width[3][kVectors * kLanes];

  Box(const NeighborhoodParams& params, int64_t lattice_index) : p(params), lattice(params, lattice_index) {}

  // False where the box lies outside this lattice (groups differ in length by one).
  bool place(const TileShape& shape, int64_t index, int64_t b, int64_t h) {
    batch = b, head = h, head_kv = h / (p.heads_q / p.heads_kv);
    int64_t first[3], n[3];
    for (int a = 2; a >= 0; a--) {
      first[a] = index % shape.grid[a] * shape.tile[a];
      index /= shape.grid[a];
      n[a] = least(shape.tile[a], lattice.length[a] - first[a]);
      if (n[a] <= 0) return false;
      Range r = union_of(p.axis[a], lattice.length[a], first[a], n[a]);
      lo[a] = r.begin, hi[a] = r.end;
    }
    count = static_cast<int>(n[0] * n[1] * n[2]);
    int32_t own[3] = {0, 0, 0};
    Range r[3];
    for (int a = 0; a < 3; a++) r[a] = window_of(p.axis[a], lattice.length[a], first[a]);
    for (int lane = 0; lane < shape.vectors * kLanes; lane++) {
      Seen& s = seen[lane / kLanes];
      for (int a = 0; a < 3; a++) {
        at[a][lane] = static_cast<int32_t>(first[a]) + own[a];
        begin[a][lane] = static_cast<int32_t>(r[a].begin);
        width[a][lane] = static_cast<int32_t>(r[a].end - r[a].begin);
        if (lane % kLanes == 0) s.lo[a] = s.full_lo[a] = r[a].begin, s.hi[a] = s.full_hi[a] = r[a].end;
        s.lo[a] = least(s.lo[a], r[a].begin), s.hi[a] = most(s.hi[a], r[a].end);
        s.full_lo[a] = most(s.full_lo[a], r[a].begin), s.full_hi[a] = least(s.full_hi[a], r[a].end);
      }
      if (lane + 1 >= count) continue;
      for (int a = 2; a >= 0; a--) {
        own[a] = own[a] + 1 < n[a] ? own[a] + 1 : 0;
        if (n[a] > 1) r[a] = window_of(p.axis[a], lattice.length[a], first[a] + own[a]);
        if (own[a]) break;
      }
    }
    return true;
  }

  int64_t query_offset(const NeighborhoodTensor& t, int lane) const {
    return batch * t.sb + head * t.sh + offset_of(p, lattice, t, at[0][lane], at[1][lane], at[2][lane]);
  }
  int64_t row_of(int lane) const {  // of lse
    const auto& axis = p.axis;
    int64_t token = (lattice.token(p, 0, at[0][lane]) * axis[1].length + lattice.token(p, 1, at[1][lane])) * axis[2].length +
                    lattice.token(p, 2, at[2][lane]);
    return (batch * p.tokens + token) * p.heads_q + head;
  }
  FOVEA_INLINE vi sees(int a, int64_t key, int z) const {
    vi distance = set1(static_cast<int32_t>(key)) - load(begin[a] + z * kLanes);
    return reinterpret_cast<vi>(reinterpret_cast<vu>(distance) < reinterpret_cast<vu>(load(width[a] + z * kLanes)));
  }
};

// Fetches rows that are needed later, a few lines between products: those of the next box, which lie `step` elements further on, and those
// this box will write.
template <int N>
class Ahead {
 public:
  struct Rows {
    const NeighborhoodTensor& tensor;
    int64_t dim, step;
  };
  Ahead(const Box& box, const Rows (&rows)[N]) : b_(box), rows_(rows) {}
  void operator()() {
    if (lane_ == b_.count) return;
    for (const Rows& r : rows_) {
      const char* row = element(r.tensor, b_.p.dtype, b_.query_offset(r.tensor, lane_) + r.step);
      for (int64_t at = 0; at < r.dim * element_bytes(b_.p.dtype); at += 64) __builtin_prefetch(row + at, 0, 2);
    }
    lane_++;
  }

 private:
  const Box& b_;
  const Rows (&rows_)[N];
  int lane_ = 0;
};

// Vectors [first, end) of a box see some of a block of kRowsOfTile keys; those with a bit in `full` see all of them, with all queries.
struct Block {
  uint8_t first, end, full;
};

// Up to kChunkKeys keys of a box: coordinates, and rows of k and v. Extra keys have coordinate -1 and come last.
struct Chunk {
  int count;
  Block block[kChunkKeys / kRowsOfTile];
  int32_t at[kChunkKeys][3];
  const float* k[kChunkKeys];
  const float* v[kChunkKeys];
};

// Walks the keys of a box, widening rows into `rows` [2][kChunkKeys][pitch] where they are not f32 with neighbouring elements.
class KeyWalk {
 public:
  KeyWalk(const Box& box, int vectors, float* rows, int64_t pitch) : b_(box), p_(box.p), vectors_(vectors), rows_(rows), pitch_(pitch) {
    for (int a = 0; a < 3; a++) c_[a] = b_.lo[a];
  }
  static bool copies(const NeighborhoodParams& p) {
    return p.dtype != DType::F32 || p.k.sd != 1 || p.v.sd != 1 || (p.extra && (p.extra_k.sd != 1 || p.extra_v.sd != 1));
  }

  bool next(Chunk& chunk) {
    chunk.count = 0;
    for (Block& block : chunk.block) block = {static_cast<uint8_t>(vectors_), 0, 0};
    while (chunk.count < kChunkKeys && c_[0] < b_.hi[0]) {
      const int64_t n = least(b_.hi[2] - c_[2], kChunkKeys - chunk.count);
      add_row(chunk, n);
      c_[2] += n;
      if (c_[2] < b_.hi[2]) continue;
      c_[2] = b_.lo[2];
      if (++c_[1] < b_.hi[1]) continue;
      c_[1] = b_.lo[1];
      c_[0]++;
    }
    if (extra_ < p_.extra)
      for (int z = 0; z < vectors_; z++) mark(chunk, chunk.count, least(chunk.count + p_.extra - extra_, kChunkKeys), z, 0, 0);
    for (; chunk.count < kChunkKeys && extra_ < p_.extra; extra_++) {
      int32_t* at = chunk.at[chunk.count];
      at[0] = at[1] = -1, at[2] = static_cast<int32_t>(extra_);
      put(chunk, row(p_.extra_k, extra_ * p_.extra_k.sp[2]), p_.extra_k.sd, row(p_.extra_v, extra_ * p_.extra_v.sp[2]), p_.extra_v.sd);
    }
    return chunk.count > 0;
  }

 private:
  const char* row(const NeighborhoodTensor& t, int64_t offset) const {
    return element(t, p_.dtype, b_.batch * t.sb + b_.head_kv * t.sh + offset);
  }

  void add_row(Chunk& chunk, int64_t n) {
    const char* k = row(p_.k, offset_of(p_, b_.lattice, p_.k, c_[0], c_[1], c_[2]));
    const char* v = row(p_.v, offset_of(p_, b_.lattice, p_.v, c_[0], c_[1], c_[2]));
    const int64_t bytes = p_.axis[2].dilation * element_bytes(p_.dtype), step_k = p_.k.sp[2] * bytes, step_v = p_.v.sp[2] * bytes;
    for (int z = 0; z < vectors_; z++) {
      const Box::Seen& s = b_.seen[z];
      if (c_[0] < s.lo[0] || c_[0] >= s.hi[0] || c_[1] < s.lo[1] || c_[1] >= s.hi[1]) continue;
      const bool full = c_[0] >= s.full_lo[0] && c_[0] < s.full_hi[0] && c_[1] >= s.full_lo[1] && c_[1] < s.full_hi[1];
      const int64_t shift = chunk.count - c_[2], end = chunk.count + n;
      mark(chunk, most(s.lo[2] + shift, chunk.count), least(s.hi[2] + shift, end), z, most(s.full_lo[2] + shift, chunk.count),
           full ? least(s.full_hi[2] + shift, end) : 0);
    }
    for (int64_t i = 0; i < n; i++) {
      int32_t* at = chunk.at[chunk.count];
      at[0] = static_cast<int32_t>(c_[0]), at[1] = static_cast<int32_t>(c_[1]), at[2] = static_cast<int32_t>(c_[2] + i);
      put(chunk, k + i * step_k, p_.k.sd, v + i * step_v, p_.v.sd);
    }
  }

  // Vector z sees some of keys [from, to), and with all its queries keys [full_from, full_to).
  static void mark(Chunk& chunk, int64_t from, int64_t to, int z, int64_t full_from, int64_t full_to) {
    for (int64_t i = from / kRowsOfTile; i * kRowsOfTile < to && from < to; i++) {
      Block& block = chunk.block[i];
      block.first = static_cast<uint8_t>(least(block.first, z)), block.end = static_cast<uint8_t>(most(block.end, z + 1));
      if (full_from <= i * kRowsOfTile && (i + 1) * kRowsOfTile <= full_to) block.full |= static_cast<uint8_t>(1 << z);
    }
  }

  FOVEA_INLINE void put(Chunk& chunk, const char* k, int64_t k_step, const char* v, int64_t v_step) {
    const int j = chunk.count++;
    if (!rows_) {
      chunk.k[j] = reinterpret_cast<const float*>(k);
      chunk.v[j] = reinterpret_cast<const float*>(v);
      return;
    }
    float *to_k = rows_ + j * pitch_, *to_v = rows_ + (kChunkKeys + j) * pitch_;
    widen(p_.dtype, k, k_step, p_.dim, to_k);
    widen(p_.dtype, v, v_step, p_.dim_v, to_v);
    chunk.k[j] = to_k, chunk.v[j] = to_v;
  }

  const Box& b_;
  const NeighborhoodParams& p_;
  const int vectors_;
  float* rows_;
  int64_t pitch_, c_[3], extra_ = 0;
};

// to[d][z] = factor * row of query z, lanes as columns, in `vectors` vectors; rows are at data + query_offset.
inline void pack_queries(const Box& b, const NeighborhoodTensor& t, int64_t dim, float factor, int vectors, float* to) {
  for (int z = 0; z < vectors; z++) {
    const char* rows[kLanes];
    for (int i = 0; i < kLanes; i++) rows[i] = element(t, b.p.dtype, b.query_offset(t, z * kLanes + i));
    pack_lanes(b.p.dtype, rows, t.sd, dim, factor, to + z * kLanes, int64_t{vectors} * kLanes);
  }
}

// The reverse: rows of the first b.count queries from columns, each lane times its factor.
inline void unpack_queries(const Box& b, const NeighborhoodTensor& t, int64_t dim, const vf* factor, int vectors, const float* from) {
  for (int z = 0; z < vectors; z++) {
    char* rows[kLanes];
    for (int i = 0; i < kLanes; i++) rows[i] = const_cast<char*>(element(t, b.p.dtype, b.query_offset(t, z * kLanes + i)));
    const int lanes = static_cast<int>(least(b.count - z * kLanes, kLanes));
    unpack_lanes(b.p.dtype, rows, lanes, t.sd, dim, factor[z], from + z * kLanes, int64_t{vectors} * kLanes);
  }
}

// Calls visit.operator()<n>(begin, end, first) for runs of keys that vectors [first, first + n) see; whole blocks, so that end may lie
// beyond the last key.
template <int NZ, class Visit>
FOVEA_INLINE void each_run(const Chunk& chunk, Visit&& visit) {
  const int blocks = (chunk.count + kRowsOfTile - 1) / kRowsOfTile;
  for (int i = 0, next; i < blocks; i = next) {
    const Block& block = chunk.block[i];
    for (next = i + 1; next < blocks && chunk.block[next].first == block.first && chunk.block[next].end == block.end;) next++;
    const int begin = i * kRowsOfTile, end = next * kRowsOfTile, n = block.end - block.first;
    if (n == 1) visit.template operator()<1>(begin, end, block.first);
    if constexpr (NZ >= 2)
      if (n == 2) visit.template operator()<2>(begin, end, block.first);
    if constexpr (NZ >= 3)
      if (n == 3) visit.template operator()<3>(begin, end, block.first);
  }
}

// acc[i][z] = sum_w rows[i][w] * columns[w][z], words of a column `pitch` floats apart.
template <int N>
FOVEA_INLINE void multiply_tile(const float* const* rows, const float* columns, int64_t pitch, int64_t words, vf (&acc)[kRowsOfTile][N]) {
  FOVEA_UNROLL
  for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
  for (int z = 0; z < N; z++) acc[i][z] = zero();
  const float* row[kRowsOfTile];
  FOVEA_UNROLL
  for (int i = 0; i < kRowsOfTile; i++) row[i] = rows[i];
  for (int64_t w = 0; w < words; w++, columns += pitch) {
    vf b[N];
    FOVEA_UNROLL
    for (int z = 0; z < N; z++) b[z] = load(columns + z * kLanes);
    FOVEA_UNROLL
    for (int i = 0; i < kRowsOfTile; i++) {
      const vf a = broadcast(row[i] + w);
      FOVEA_UNROLL
      for (int z = 0; z < N; z++) acc[i][z] = fma(a, b[z], acc[i][z]);
    }
  }
}

// to[j][z] = rows[j] . columns of z, where z sees j (whole blocks: the caller repeats the last row). meanwhile() is called between blocks.
template <int NZ, class Meanwhile>
__attribute__((noinline)) void multiply_rows(const Chunk& chunk, const float* const* rows, const float* columns, int64_t words, float* to,
                                             Meanwhile&& meanwhile) {
  each_run<NZ>(chunk, [&]<int N>(int begin, int end, int first) {
    for (int j = begin; j < end; j += kRowsOfTile) {
      vf acc[kRowsOfTile][N];
      multiply_tile<N>(rows + j, columns + first * kLanes, NZ * kLanes, words, acc);
      FOVEA_UNROLL
      for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
      for (int z = 0; z < N; z++) store(to + ((j + i) * NZ + first + z) * kLanes, acc[i][z]);
      meanwhile();
    }
  });
}

// out[d][z] += sum_j rows[j][d] * weights[j][z] for R values of d and N vectors; both are NZ vectors wide.
template <int NZ, int R, int N>
FOVEA_INLINE void add_tile(const float* const* rows, int count, int64_t d, const float* weights, float* out) {
  vf acc[R][N];
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) FOVEA_UNROLL
  for (int z = 0; z < N; z++) acc[i][z] = load(out + ((d + i) * NZ + z) * kLanes);
  for (int j = 0; j < count; j++, weights += NZ * kLanes) {
    vf b[N];
    FOVEA_UNROLL
    for (int z = 0; z < N; z++) b[z] = load(weights + z * kLanes);
    FOVEA_UNROLL
    for (int i = 0; i < R; i++) {
      const vf a = broadcast(rows[j] + d + i);
      FOVEA_UNROLL
      for (int z = 0; z < N; z++) acc[i][z] = fma(a, b[z], acc[i][z]);
    }
  }
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) FOVEA_UNROLL
  for (int z = 0; z < N; z++) store(out + ((d + i) * NZ + z) * kLanes, acc[i][z]);
}

// out[d][z] += sum of rows[j][d] * weights[j][z] over the keys j that z sees.
template <int NZ>
__attribute__((noinline)) void add_rows(const Chunk& chunk, const float* const* rows, int64_t dim, const float* weights, float* out) {
  each_run<NZ>(chunk, [&]<int N>(int begin, int end, int first) {
    const int count = static_cast<int>(least(end, chunk.count)) - begin;
    const float* from = weights + (begin * NZ + first) * kLanes;
    float* to = out + first * kLanes;
    int64_t d = 0;
    for (; d + kRowsOfTile <= dim; d += kRowsOfTile) add_tile<NZ, kRowsOfTile, N>(rows + begin, count, d, from, to);
    if (dim - d >= 4) add_tile<NZ, 4, N>(rows + begin, count, d, from, to), d += 4;
    for (; d < dim; d++) add_tile<NZ, 1, N>(rows + begin, count, d, from, to);
  });
}

// Index of a query's and a key's coordinates in one head of the bias table: their difference, see NeighborhoodParams::rpb.
struct BiasIndex {
  int64_t step[3];
  int64_t size;
  explicit BiasIndex(const NeighborhoodParams& p) {
    step[2] = 1;
    step[1] = 2 * p.axis[2].kernel - 1;
    step[0] = step[1] * (2 * p.axis[1].kernel - 1);
    size = step[0] * (2 * p.axis[0].kernel - 1);
  }
  int64_t key(const NeighborhoodParams& p, const int32_t* at) const {
    int64_t index = 0;
    for (int a = 0; a < 3; a++) index += (at[a] + p.axis[a].kernel - 1) * step[a];
    return index;
  }
  int64_t query(const Box& b, int lane) const { return b.at[0][lane] * step[0] + b.at[1][lane] * step[1] + b.at[2][lane]; }
};

// Sets the scores of pairs that do not see each other to -inf, after adding the bias. Rows are [key][z].
template <int NZ>
void finish_scores(const Box& b, const Chunk& chunk, const int32_t* bias_of_query, float* scores) {
  const NeighborhoodParams& p = b.p;
  const BiasIndex index(p);
  const float* table = p.rpb ? p.rpb + b.head * index.size : nullptr;
  const vf hidden = set1(-__builtin_inff());
  for (int z = 0; z < NZ; z++) {
    vi outer{};
    int64_t row0 = -2, row1 = -2;
    for (int j = 0; j < chunk.count; j++) {
      const Block& block = chunk.block[j / kRowsOfTile];
      if (z < block.first || z >= block.end || ((block.full >> z & 1) && !table)) {
        j |= kRowsOfTile - 1;
        continue;
      }
      const int32_t* at = chunk.at[j];
      if (at[0] < 0) break;
      if (at[0] != row0 || at[1] != row1) row0 = at[0], row1 = at[1], outer = b.sees(0, row0, z) & b.sees(1, row1, z);
      float* to = scores + (j * NZ + z) * kLanes;
      const vi seen = outer & b.sees(2, at[2], z);
      vf s = load(to);
      if (table) {
        const vi which = select(seen, set1(static_cast<int32_t>(index.key(p, at))) - load(bias_of_query + z * kLanes), vi{});
        vf bias;
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++) bias[i] = table[which[i]];
        s = fma(bias, set1(kLog2E), s);
      }
      store(to, select(seen, s, hidden));
    }
  }
}

}  // namespace
}  // namespace fovea::cpu
