// What the span search takes, on every device.
#pragma once

#include <cstdint>

#include "core/attention_params.h"

namespace fovea {

constexpr int kMaxSpans = 16;

// Query i stands at position q_offset + i. Step 1 scores the keys at distances[0], distances[1], .. before it; every further step scores,
// around each anchor kept so far, the keys at multiples of stride[n] up to back[n] before and forward[n] after it, n = number of keys the
// query may see (position + 1 - first). Spans reach from anchor - span_back[n] to anchor + span_forward[n]. Of equal scores the key that
// was scored first stays ahead: anchors in their order, then keys in the order named.
struct SpanSearchParams {
  DType dtype;
  int64_t batch, heads_q, heads_kv, len_q, len_kv, dim;
  AttentionTensor q, k;  // rows of neighbouring elements
  int64_t q_offset;
  const uint8_t* key_mask;  // [batch, len_kv], 0 = not to be used; null = all
  int64_t* first;           // [batch] out: position of the first key in use, len_kv where there is none; null without key_mask
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

}  // namespace fovea
