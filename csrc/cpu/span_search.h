// Span search of superlinear attention: each query scores few of the keys before it and keeps the best as anchors of spans.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/attention_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

constexpr int kMaxSpans = 16;

// Query i stands at position q_offset + i. Step 1 scores the keys at distances[0], distances[1], .. before it; every further step scores,
// around each anchor kept so far, the keys at multiples of stride[n] up to back[n] before and forward[n] after it, n = number of keys the
// query may see (position + 1 - first). Spans reach from anchor - span_back[n] to anchor + span_forward[n].
struct SpanSearchParams {
  DType dtype;
  int64_t batch, heads_q, heads_kv, len_q, len_kv, dim;
  AttentionTensor q, k;  // rows of neighbouring elements
  int64_t q_offset;
  const uint8_t* key_mask;  // [batch, len_kv], 0 = not to be used; null = all
  const int64_t* first;     // [batch] position of the first key in use; null = 0
  const int32_t* distances;
  int64_t distance_count;
  const int32_t* steps;  // [refinements][3 = back, forward, stride][table]
  int64_t refinements;
  const int32_t *span_back, *span_forward;  // [table]
  int64_t table;                            // entries, at least the largest n + 1
  int64_t window;                           // keys before and with the query that no span enters
  int64_t spans;                            // <= kMaxSpans
  // [batch, heads_q, len_q, spans]: key or -1, its score (-inf where none), and the half-open range of the span.
  int32_t* anchors;
  float* scores;
  int32_t* ranges;
};

template <Isa>
void span_search(const SpanSearchParams&, ThreadPool&, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
