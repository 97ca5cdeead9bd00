// Tokens are in lanes: some of them are transposed once, multiplied with register tiles of centroid rows, and the products are divided by
// the lengths of the tokens. Unit vectors are never made, and similarities are not kept: as in select_row.h a sample of the tokens gives
// every cluster a bound that its last token probably lies above, and only what reaches it is written, block by block of tokens. A second
// round joins the blocks of a cluster and selects from them; where a bound was too high it collects the cluster anew without one.
#include "cpu/cluster_top.h"

#include "core/call_memory.h"
#include "cpu/cluster_similarity.h"
#include "cpu/pieces.h"
#include "cpu/select_row.h"

namespace fovea::cpu {
namespace {

// The tokens that are packed after those from `first` on: they are far, and products take long, so a row is fetched with every cluster.
template <class T>
struct TokensAhead {
  const T *row, *end;
  int64_t step, bytes;

  TokensAhead(const ClusterTopParams& p, const T* head, int64_t first, int64_t tokens_apart) : step(tokens_apart * p.x.sl) {
    const int64_t next = first + kTokens * tokens_apart, last = next + kTokens * tokens_apart;
    row = head + next * p.x.sl, end = head + (last < p.length ? last : p.length) * p.x.sl;
    bytes = p.dim * static_cast<int64_t>(sizeof(T));
  }
  FOVEA_INLINE void fetch() {
    if (row >= end) return;
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(reinterpret_cast<const char*>(row) + i);
    row += step;
  }
};

// Calls put(cluster, kVectors similarities) for clusters [from, to) and packed tokens.
template <class T, class Put>
FOVEA_INLINE void compare(const ClusterTopParams& p, const float* centroids, int64_t from, int64_t to, const PackedTokens& packed,
                          TokensAhead<T> ahead, Put&& put) {
  for (int64_t c = from; c < to; c += kRowsOfTile) {
    const float* rows[kRowsOfTile];
    for (int i = 0; i < kRowsOfTile; i++) rows[i] = centroids + (c + i < to ? c + i : to - 1) * p.dim;
    vf acc[kRowsOfTile][kVectors];
    score_tile<kVectors, Words::F32>(
        rows, packed.words, static_cast<int>(p.dim), acc, [&](int) __attribute__((always_inline)) { ahead.fetch(); });
    FOVEA_UNROLL
    for (int i = 0; i < kRowsOfTile; i++) {
      if (c + i >= to) break;
      FOVEA_UNROLL
      for (int z = 0; z < kVectors; z++) acc[i][z] *= load(packed.inverse + z * kLanes);
      put(c + i, acc[i]);
    }
  }
}

// Writes the first `lanes` similarities that are not below the bound, and their places, as many as a vector holds behind them. Returns how
// many there were.
FOVEA_INLINE int64_t keep(vf similarity, vf bound, int lanes, int64_t first, float* similarities, int32_t* places) {
  const vi place = iota() + set1(static_cast<int32_t>(first));
#if defined(__AVX512F__)
  const auto hit = static_cast<__mmask16>(_mm512_cmp_ps_mask(similarity, bound, _CMP_NLT_UQ) & ((1u << lanes) - 1));
#else
  const vi hit = ~(similarity < bound) & first_lanes(lanes);
  if (!maybe_any(hit)) return 0;
#endif
  compress(hit, place, places);
  return compress(hit, reinterpret_cast<vi>(similarity), similarities);
}

template <class T>
class ClusterTop {
 public:
  explicit ClusterTop(const ClusterTopParams& params)
      : p(params), blocks_((p.length + kClusterBlock - 1) / kClusterBlock), memory_(cut(nullptr)) {
    cut(memory_.data);
  }

  // Three rounds: bounds of clusters, blocks of tokens, clusters.
  void run(ThreadPool& pool) {
    const int64_t lists = p.batch * p.heads;
    const size_t packed = PackedTokens::floats(p.dim) * 4;
    pool.run(lists, [&](int64_t list, int thread) {
      const size_t sample = static_cast<size_t>(p.clusters * kSample) * 4;
      float* memory = static_cast<float*>(pool.scratch(thread, packed + sample));
      find_bounds(list, PackedTokens(memory, p.dim), reinterpret_cast<uint32_t*>(memory + PackedTokens::floats(p.dim)));
    });
    pool.run(lists * blocks_, [&](int64_t tile, int thread) {
      float* memory = static_cast<float*>(pool.scratch(thread, packed));
      const int64_t list = tile / blocks_, block = tile % blocks_;
      for (int64_t c = 0; c < p.clusters; c++) count_at(list, block, c) = 0;
      collect(list, block, 0, p.clusters, bounds(list), PackedTokens(memory, p.dim));
    });
    pool.run(lists * p.clusters, [&](int64_t tile, int thread) {
      float* memory = static_cast<float*>(pool.scratch(thread, packed + static_cast<size_t>(select_words(p.length)) * 4));
      select(tile / p.clusters, tile % p.clusters, PackedTokens(memory, p.dim),
             reinterpret_cast<uint32_t*>(memory + PackedTokens::floats(p.dim)));
    });
  }

 private:
  static constexpr uint32_t kHighestKey = 0xff800000u;  // of infinity; that of NaN is above
  static constexpr int64_t kSample = kSampleKeys / kTokens * kTokens + (kSampleKeys % kTokens ? kTokens : 0);

  int64_t cut(void* block) {
    const int64_t lists = p.batch * p.heads * p.clusters;
    Pieces pieces(block);
    similarities_ = pieces.take(lists * blocks_ * kClusterPitch);
    places_ = pieces.take<int32_t>(lists * blocks_ * kClusterPitch);
    counts_ = pieces.take<int32_t>(lists * blocks_);
    bounds_ = pieces.take<uint32_t>(lists);
    return pieces.bytes();
  }

  const T* head(int64_t list) const { return static_cast<const T*>(p.x.data) + list / p.heads * p.x.sb + list % p.heads * p.x.sh; }
  const float* centroids(int64_t list) const { return p.centroids + list % p.heads * p.clusters * p.dim; }
  uint32_t* bounds(int64_t list) const { return bounds_ + list * p.clusters; }
  int32_t& count_at(int64_t list, int64_t block, int64_t c) const { return counts_[(list * blocks_ + block) * p.clusters + c]; }
  int64_t place_of(int64_t list, int64_t block, int64_t c) const { return ((list * blocks_ + block) * p.clusters + c) * kClusterPitch; }

  void find_bounds(int64_t list, const PackedTokens& packed, uint32_t* sample) const {
    const int64_t step = p.length / kSample, rank = p.window * kSample / p.length, below = rank + 5 + rank / 6;
    const bool help = step >= 8 && below < kSample;
    for (int64_t t = 0; help && t < kSample; t += kTokens) {
      pack_tokens(
          p.dim, kTokens, [&](int i) __attribute__((always_inline)) { return head(list) + (t + i) * step * p.x.sl; }, packed);
      auto put = [&](int64_t c, const vf(&similarity)[kVectors]) __attribute__((always_inline)) {
        FOVEA_UNROLL
        for (int z = 0; z < kVectors; z++)
          store(reinterpret_cast<int32_t*>(sample + c * kSample + t + z * kLanes), reinterpret_cast<vi>(keys_of(similarity[z])));
      };
      compare(p, centroids(list), 0, p.clusters, packed, TokensAhead<T>(p, head(list), t * step, step), put);
    }
    for (int64_t c = 0; c < p.clusters; c++) {
      const uint32_t bound = help ? bisect(sample + c * kSample, kSample, below + 1, 1) : 0;
      bounds(list)[c] = bound > kHighestKey ? 0 : bound;
    }
  }

  // Adds the tokens of a block that reach `bounds` of clusters [from, to) to the lists of the block.
  void collect(int64_t list, int64_t block, int64_t from, int64_t to, const uint32_t* bounds, const PackedTokens& packed) const {
    const int64_t begin = block * kClusterBlock, end = begin + kClusterBlock < p.length ? begin + kClusterBlock : p.length;
    for (int64_t t = begin; t < end; t += kTokens) {
      const int count = end - t < kTokens ? static_cast<int>(end - t) : kTokens;
      pack_tokens(
          p.dim, count, [&](int i) __attribute__((always_inline)) { return head(list) + (t + i) * p.x.sl; }, packed);
      int lanes[kVectors];
      for (int z = 0; z < kVectors; z++) {
        const int left = count - z * kLanes;
        lanes[z] = left < 0 ? 0 : left < kLanes ? left : kLanes;
      }
      auto put = [&](int64_t c, const vf(&similarity)[kVectors]) __attribute__((always_inline)) {
        const vf bound = set1(number_of(bounds[c - from]));
        int32_t& count = count_at(list, block, c);
        int64_t kept = count;
        float* similarities = similarities_ + place_of(list, block, c);
        int32_t* places = places_ + place_of(list, block, c);
        FOVEA_UNROLL
        for (int z = 0; z < kVectors; z++) kept += keep(similarity[z], bound, lanes[z], t + z * kLanes, similarities + kept, places + kept);
        count = static_cast<int32_t>(kept);
      };
      compare(p, centroids(list), from, to, packed, TokensAhead<T>(p, head(list), t, 1), put);
    }
  }

  void select(int64_t list, int64_t c, const PackedTokens& packed, uint32_t* scratch) const {
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
    for (int64_t b = 0; b < blocks_; b++) {
      const float* similarities = similarities_ + place_of(list, b, c);
      const int32_t* places = places_ + place_of(list, b, c);
      const int64_t count = count_at(list, b, c), at = all.count;
      for (int64_t i = 0; i < count; i += kLanes) {
        store(reinterpret_cast<int32_t*>(all.keys + at + i), reinterpret_cast<vi>(keys_of(load(similarities + i))));
        store(all.places + at + i, load(places + i));
      }
      all.count = at + count;
    }
    all.end(all.count);
    select_kept(all, p.window, bound, p.indices + (list * p.clusters + c) * p.window);
  }

  const ClusterTopParams& p;
  const int64_t blocks_;
  float* similarities_;  // [list, block, cluster][kClusterPitch]
  int32_t* places_;      // the same
  int32_t* counts_;      // [list, block, cluster]
  uint32_t* bounds_;     // [list, cluster]: keys
  const CallMemory memory_;
};

}  // namespace

template <>
void cluster_top<kIsa>(const ClusterTopParams& p, ThreadPool& pool) {
  if constexpr (kIsa == Isa::Avx512) {
    if (current_isa() == Isa::Amx && cluster_top_amx_takes(p)) return cluster_top_amx(p, pool);
  }
  switch (p.dtype) {
    case DType::BF16: return ClusterTop<bf16>(p).run(pool);
    case DType::F16: return ClusterTop<f16>(p).run(pool);
    default: return ClusterTop<float>(p).run(pool);
  }
}

}  // namespace fovea::cpu
