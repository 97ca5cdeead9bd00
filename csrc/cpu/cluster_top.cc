// Tokens are in lanes: some of them are transposed once, multiplied with register tiles of centroid rows, and the products are divided by
// the lengths of the tokens. Unit vectors are never made, and similarities are not kept: as in select_row.h a sample of the tokens gives
// every cluster a bound that its last token probably lies above, and only what reaches it is written, block by block of tokens. A second
// round joins the blocks of a cluster and selects from them; where a bound was too high it collects the cluster anew without one.
#include "cpu/cluster_top.h"

#include "cpu/attention_math.h"
#include "cpu/select_row.h"

namespace fovea::cpu {
namespace {

constexpr int kTokens = kVectors * kLanes;  // of a register tile
constexpr float kSmallestLength = 1e-12f;

// Tokens first, first + step, .. as [dim][kTokens], those from `end` on 0, and 1 / length of each.
template <class T>
void pack(const ClusterTopParams& p, const T* head, int64_t first, int64_t step, int64_t end, float* packed, float* inverse) {
  for (int z = 0; z < kVectors; z++) {
    const int64_t begin = first + z * kLanes * step, left = begin < end ? (end - begin + step - 1) / step : 0;
    const int rows = left < kLanes ? static_cast<int>(left) : kLanes;
    const T* x = head + begin * p.x.sl;
    vf squares = zero();
    for (int64_t d = 0; d < p.dim; d += kLanes) {
      const int width = p.dim - d < kLanes ? static_cast<int>(p.dim - d) : kLanes;
      vf v[kLanes];
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) v[i] = i < rows ? load_part(x + i * step * p.x.sl + d, width) : zero();
      transpose(v);
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) {
        squares = fma(v[i], v[i], squares);
        if (i < width) store(packed + (d + i) * kTokens + z * kLanes, v[i]);
      }
    }
    float lengths[kLanes];
    store(lengths, squares);
    for (int l = 0; l < kLanes; l++) {
      const float length = __builtin_sqrtf(lengths[l]);
      inverse[z * kLanes + l] = 1.f / (length > kSmallestLength ? length : kSmallestLength);
    }
  }
}

// Calls put(cluster, vector, keys of the similarities) for clusters [from, to) and the vectors of packed tokens.
template <class Put>
FOVEA_INLINE void compare(const ClusterTopParams& p, const float* centroids, int64_t from, int64_t to, const float* packed,
                          const float* inverse, Put&& put) {
  for (int64_t c = from; c < to; c += kRowsOfTile) {
    const float* rows[kRowsOfTile];
    for (int i = 0; i < kRowsOfTile; i++) rows[i] = centroids + (c + i < to ? c + i : to - 1) * p.dim;
    vf acc[kRowsOfTile][kVectors];
    score_tile<kVectors, Words::F32>(rows, packed, static_cast<int>(p.dim), acc, [](int) {});
    FOVEA_UNROLL
    for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
    for (int z = 0; z < kVectors; z++)
      if (c + i < to) put(c + i, z, keys_of(acc[i][z] * load(inverse + z * kLanes)));
  }
}

template <class T>
class ClusterTop {
 public:
  explicit ClusterTop(const ClusterTopParams& params) : p(params), blocks_((p.length + kClusterBlock - 1) / kClusterBlock) {}

  // Two rounds: blocks of tokens, then clusters.
  void run(ThreadPool& pool) {
    const int64_t lists = p.batch * p.heads;
    const size_t packed = static_cast<size_t>((p.dim + 1) * kTokens) * 4;
    pool.run(lists, [&](int64_t list, int thread) {
      const size_t sample = static_cast<size_t>(p.clusters * kSample) * 4;
      float* memory = static_cast<float*>(pool.scratch(thread, packed + sample));
      find_bounds(list, memory, reinterpret_cast<uint32_t*>(memory + (p.dim + 1) * kTokens));
    });
    pool.run(lists * blocks_, [&](int64_t tile, int thread) {
      float* memory = static_cast<float*>(pool.scratch(thread, packed));
      const int64_t list = tile / blocks_, block = tile % blocks_;
      for (int64_t c = 0; c < p.clusters; c++) count_at(list, block, c) = 0;
      collect(list, block, 0, p.clusters, bounds(list), memory);
    });
    pool.run(lists * p.clusters, [&](int64_t tile, int thread) {
      float* memory = static_cast<float*>(pool.scratch(thread, packed + static_cast<size_t>(select_words(p.length)) * 4));
      select(tile / p.clusters, tile % p.clusters, memory, reinterpret_cast<uint32_t*>(memory + (p.dim + 1) * kTokens));
    });
  }

 private:
  static constexpr int64_t kSample = kSampleKeys / kTokens * kTokens + (kSampleKeys % kTokens ? kTokens : 0);

  const T* head(int64_t list) const { return static_cast<const T*>(p.x.data) + list / p.heads * p.x.sb + list % p.heads * p.x.sh; }
  const float* centroids(int64_t list) const { return p.centroids + list % p.heads * p.clusters * p.dim; }
  uint32_t* bounds(int64_t list) const { return p.bounds + list * p.clusters; }
  int32_t& count_at(int64_t list, int64_t block, int64_t c) const { return p.counts[(list * blocks_ + block) * p.clusters + c]; }
  int64_t place_of(int64_t list, int64_t block, int64_t c) const { return ((list * blocks_ + block) * p.clusters + c) * kClusterPitch; }

  void find_bounds(int64_t list, float* packed, uint32_t* sample) const {
    float* inverse = packed + p.dim * kTokens;
    const int64_t step = p.length / kSample, rank = p.window * kSample / p.length, below = rank + 5 + rank / 6;
    const bool help = step >= 8 && below < kSample;
    for (int64_t t = 0; help && t < kSample; t += kTokens) {
      pack(p, head(list), t * step, step, p.length, packed, inverse);
      compare(
          p, centroids(list), 0, p.clusters, packed, inverse, [&](int64_t c, int z, vu keys) __attribute__((always_inline)) {
            store(reinterpret_cast<int32_t*>(sample + c * kSample + t + z * kLanes), reinterpret_cast<vi>(keys));
          });
    }
    for (int64_t c = 0; c < p.clusters; c++) bounds(list)[c] = help ? bisect(sample + c * kSample, kSample, below + 1, 1) : 0;
  }

  // Adds the tokens of a block that reach `bounds` of clusters [from, to) to the lists of the block.
  void collect(int64_t list, int64_t block, int64_t from, int64_t to, const uint32_t* bounds, float* packed) const {
    float* inverse = packed + p.dim * kTokens;
    const int64_t begin = block * kClusterBlock, end = begin + kClusterBlock < p.length ? begin + kClusterBlock : p.length;
    for (int64_t t = begin; t < end; t += kTokens) {
      pack(p, head(list), t, 1, end, packed, inverse);
      compare(
          p, centroids(list), from, to, packed, inverse, [&](int64_t c, int z, vu keys) __attribute__((always_inline)) {
            const int64_t first = t + z * kLanes, left = end - first;
            vi hit = reinterpret_cast<vi>(keys >= bounds[c - from] - vu{});
            if (left < kLanes) hit &= first_lanes(left < 0 ? 0 : static_cast<int>(left));
            if (!maybe_any(hit)) return;
            int32_t& count = count_at(list, block, c);
            const int64_t at = place_of(list, block, c) + count;
            compress(hit, iota() + set1(static_cast<int32_t>(first)), p.places + at);
            count += static_cast<int32_t>(compress(hit, reinterpret_cast<vi>(keys), p.keys + at));
          });
    }
  }

  void select(int64_t list, int64_t c, float* packed, uint32_t* scratch) const {
    int64_t kept = 0;
    for (int64_t b = 0; b < blocks_; b++) kept += count_at(list, b, c);
    uint32_t bound = bounds(list)[c];
    if (kept < p.window) {
      bound = 0;
      for (int64_t b = 0; b < blocks_; b++) {
        count_at(list, b, c) = 0;
        collect(list, b, c, c + 1, &bound, packed);
      }
    }
    Kept all(scratch, p.length);
    for (int64_t b = 0; b < blocks_; b++) all.append(p.keys + place_of(list, b, c), p.places + place_of(list, b, c), count_at(list, b, c));
    select_kept(all, p.window, bound, p.indices + (list * p.clusters + c) * p.window);
  }

  const ClusterTopParams& p;
  int64_t blocks_;
};

}  // namespace

template <>
void cluster_top<kIsa>(const ClusterTopParams& p, ThreadPool& pool) {
  switch (p.dtype) {
    case DType::BF16: return ClusterTop<bf16>(p).run(pool);
    case DType::F16: return ClusterTop<f16>(p).run(pool);
    default: return ClusterTop<float>(p).run(pool);
  }
}

}  // namespace fovea::cpu
