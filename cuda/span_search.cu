// Span search, a warp a query. Heads that share keys are neighbours in the grid, so that the keys they score come from the caches.
//
// 32 keys are scored at a time: their rows are read one by one along the head dim, a vector a lane, and the 32 partial dot products of each
// lane are summed over lanes by halving (31 shuffles), which leaves the score of key i in lane i. The spans kept so far lie sorted in the
// lanes; a score that beats the last of them finds its place by a vote.
#include "core/span_search_params.h"
#include "elements.cuh"
#include "lane_sums.cuh"

namespace fovea::cuda {

namespace {

constexpr unsigned kAll = ~0u;
constexpr int kBatch = kLaneSums;

template <class T, int V>
struct alignas(sizeof(T) * V) Vector {
  T at[V];
};

// The best spans of a warp's query, best first: lane t has the t-th. Of equal scores the one offered first stays ahead.
class Kept {
 public:
  __device__ explicit Kept(int spans) : spans_(spans), lane_(static_cast<int>(threadIdx.x) & 31) {}

  // A score and key of every lane, taken in the order of lanes; key -1 = none.
  __device__ __forceinline__ void offer(float offered, int32_t key) {
    float worst = last();
    unsigned open = __ballot_sync(kAll, key >= 0 && offered > worst);
    while (open) {
      const int from = __ffs(static_cast<int>(open)) - 1;
      insert(__shfl_sync(kAll, offered, from), __shfl_sync(kAll, key, from));
      worst = last();
      open = __ballot_sync(kAll, key >= 0 && offered > worst && lane_ > from);
    }
  }

  __device__ __forceinline__ bool holds(int32_t key) const {
    bool found = false;
    for (int t = 0; t < spans_; t++) found |= __shfl_sync(kAll, anchor, t) == key;
    return found;
  }

  float score = -INFINITY;
  int32_t anchor = -1;

 private:
  __device__ __forceinline__ float last() const { return __shfl_sync(kAll, score, spans_ - 1); }

  __device__ __forceinline__ void insert(float s, int32_t key) {
    const int place = __popc(__ballot_sync(kAll, lane_ < spans_ && score >= s));
    const float above_score = __shfl_up_sync(kAll, score, 1);
    const int32_t above_anchor = __shfl_up_sync(kAll, anchor, 1);
    if (lane_ == place) score = s, anchor = key;
    else if (lane_ > place && lane_ < spans_) score = above_score, anchor = above_anchor;
  }

  const int spans_, lane_;
};

template <class T, int V>
class Search {
 public:
  __device__ Search(const SpanSearchParams& p, int64_t item)
      : p_(p), kept_(static_cast<int>(p.spans)), lane_(static_cast<int>(threadIdx.x) & 31) {
    const int64_t group = p.heads_q / p.heads_kv, kv_item = item / group / p.len_q, query = item / group % p.len_q;
    const int64_t batch = kv_item / p.heads_kv, kv_head = kv_item % p.heads_kv, head = kv_head * group + item % group;
    q_ = at<T>(p.q.data, batch * p.q.sb + head * p.q.sh + query * p.q.sl);
    k_ = at<T>(p.k.data, batch * p.k.sb + kv_head * p.k.sh);
    mask_ = p.key_mask ? p.key_mask + batch * p.len_kv : nullptr;
    first_ = p.first ? p.first[batch] : 0;
    position_ = p.q_offset + query;
    seen_ = min(max(position_ + 1 - first_, int64_t{0}), p.table - 1);
    out_ = ((batch * p.heads_q + head) * p.len_q + query) * p.spans;
  }

  __device__ void run() {
    search();
    for (int64_t step = 0; step < p_.refinements; step++) refine(p_.steps + step * 3 * p_.table);
    if (lane_ < p_.spans) write();
  }

 private:
  __device__ bool usable(int64_t key) const { return key >= first_ && key < p_.len_kv && (!mask_ || mask_[key]); }

  __device__ void search() {
    for (int64_t i = lane_; __any_sync(kAll, i < p_.distance_count); i += kBatch) {
      const int64_t key = i < p_.distance_count ? position_ - p_.distances[i] : -1;
      if (!__any_sync(kAll, key >= first_)) break;
      score(usable(key) ? static_cast<int32_t>(key) : -1);
    }
  }

  __device__ void refine(const int32_t* tables) {
    const int64_t back = tables[seen_], forward = tables[p_.table + seen_], stride = tables[2 * p_.table + seen_];
    const int64_t last = position_ - p_.window;
    const int32_t from = kept_.anchor;
#pragma unroll 1
    for (int t = 0; t < p_.spans; t++) {
      const int64_t anchor = __shfl_sync(kAll, from, t);
      if (anchor < 0) break;
      for (int64_t key0 = anchor - back / stride * stride; key0 <= anchor + forward; key0 += kBatch * stride) {
        const int64_t key = key0 + lane_ * stride;
        const bool wanted = key <= anchor + forward && key <= last && usable(key);
        const bool held = kept_.holds(static_cast<int32_t>(key));
        score(wanted && !held ? static_cast<int32_t>(key) : -1);
      }
    }
  }

  // Offers the key of every lane, -1 = none.
  __device__ __forceinline__ void score(int32_t key) {
    if (!__any_sync(kAll, key >= 0)) return;
    float part[kBatch] = {};
#pragma unroll 1
    for (int64_t d = lane_ * V; __any_sync(kAll, d < p_.dim); d += 32 * V) {
      const bool inside = d < p_.dim;
      float q[V];
      const auto wide = inside ? *reinterpret_cast<const Vector<T, V>*>(q_ + d) : Vector<T, V>{};
#pragma unroll
      for (int e = 0; e < V; e++) q[e] = to_f32(wide.at[e]);
#pragma unroll
      for (int i = 0; i < kBatch; i++) {
        const int32_t row = __shfl_sync(kAll, key, i);
        const auto k = row >= 0 && inside ? *reinterpret_cast<const Vector<T, V>*>(k_ + row * p_.k.sl + d) : Vector<T, V>{};
#pragma unroll
        for (int e = 0; e < V; e++) part[i] = fmaf(q[e], to_f32(k.at[e]), part[i]);
      }
    }
    kept_.offer(sum_over_lanes(part, lane_), key);
  }

  __device__ void write() const {
    const int64_t anchor = kept_.anchor, at = out_ + lane_;
    const int64_t begin = max(max(anchor - p_.span_back[seen_], first_), int64_t{0});
    const int64_t end = min(min(anchor + p_.span_forward[seen_], position_ - max(p_.window, int64_t{0})), p_.len_kv - 1);
    p_.anchors[at] = kept_.anchor;
    p_.scores[at] = kept_.score;
    p_.ranges[2 * at] = anchor < 0 ? 0 : static_cast<int32_t>(begin);
    p_.ranges[2 * at + 1] = anchor < 0 ? 0 : static_cast<int32_t>(end + 1);
  }

  const SpanSearchParams& p_;
  Kept kept_;
  const int lane_;
  const T *q_, *k_;
  const uint8_t* mask_;
  int64_t first_, position_, seen_, out_;
};

template <class T, int V>
__device__ __forceinline__ void span_search(const SpanSearchParams& p) {
  const int64_t item = global_thread() / 32;
  if (item < p.batch * p.heads_q * p.len_q) Search<T, V>(p, item).run();
}

}  // namespace

// A block a sequence.
extern "C" __global__ void span_search_first(const __grid_constant__ SpanSearchParams p) {
  __shared__ unsigned first;
  if (threadIdx.x == 0) first = static_cast<unsigned>(p.len_kv);
  __syncthreads();
  const uint8_t* mask = p.key_mask + blockIdx.x * p.len_kv;
  int64_t i = threadIdx.x;
  while (i < p.len_kv && !mask[i]) i += blockDim.x;
  if (i < p.len_kv) atomicMin(&first, static_cast<unsigned>(i));
  __syncthreads();
  if (threadIdx.x == 0) p.first[blockIdx.x] = first;
}

extern "C" __global__ void span_search_f32_1(const __grid_constant__ SpanSearchParams p) { span_search<float, 1>(p); }
extern "C" __global__ void span_search_f32_2(const __grid_constant__ SpanSearchParams p) { span_search<float, 2>(p); }
extern "C" __global__ void span_search_f32_4(const __grid_constant__ SpanSearchParams p) { span_search<float, 4>(p); }
extern "C" __global__ void span_search_bf16_1(const __grid_constant__ SpanSearchParams p) { span_search<bf16, 1>(p); }
extern "C" __global__ void span_search_bf16_2(const __grid_constant__ SpanSearchParams p) { span_search<bf16, 2>(p); }
extern "C" __global__ void span_search_bf16_4(const __grid_constant__ SpanSearchParams p) { span_search<bf16, 4>(p); }
extern "C" __global__ void span_search_f16_1(const __grid_constant__ SpanSearchParams p) { span_search<f16, 1>(p); }
extern "C" __global__ void span_search_f16_2(const __grid_constant__ SpanSearchParams p) { span_search<f16, 2>(p); }
extern "C" __global__ void span_search_f16_4(const __grid_constant__ SpanSearchParams p) { span_search<f16, 4>(p); }

}  // namespace fovea::cuda
