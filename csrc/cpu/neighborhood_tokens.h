// Weights times rows of tokens, for the shift kernels: lanes are channels, weights are broadcast.
//
//   sums[i][t] += sum over rows r of tokens and places s of the last axis of weights[i][r][t, s] * tokens[r][s]
//
// kRows rows of sums share a token at one place of the last axis. So no pair is computed that is not seen, no load crosses a cache line,
// and tokens and sums lie as rows.
#pragma once

#include "cpu/neighborhood_shift.h"

namespace fovea::cpu {
namespace {

// A row of tokens that is added to rows [first, end) of sums; where it and its weights lie.
struct Source {
  int64_t row, weights;
  int32_t first, end;
};

// A token of a source and its weight, in bytes from the first that is added at this place.
struct Step {
  int64_t token, weight;
};

// What is added at a place of the last axis: steps from the token there called first.
struct Steps {
  int64_t first;
  Step* begin;
  int64_t count;
};

// Calls f(x, j, token) for the keys j of a row of n tokens that query x sees.
template <class F>
void each_pair(const NeighborhoodAxis& axis, const Ring& ring, int64_t n, F&& f) {
  for (int64_t x = 0; x < n; x++)
    for (int64_t j = axis.causal ? most(ring.before - x, 0) : 0; j < axis.kernel; j++) f(x, j, ring.token(axis, n, x + j));
}

// Floats from a row of n tokens to the next: an odd number of cache lines. Tokens at one place of neighbouring rows, and of planes of an
// odd number of rows, fall into different sets of the first cache, though rows and planes are often powers of two.
inline int64_t row_pitch(int64_t n, int64_t pitch) { return (n * pitch / 16 | 1) * 16; }

// Lists what queries of a row of n tokens meet, the keys j of their windows, and the reverse where of_keys is given. weight(x, j) is where
// the weight of query x and key j lies.
template <class Weight>
void list_steps(const NeighborhoodAxis& axis, const Ring& ring, int64_t n, int64_t pitch, Weight&& weight, Step* next, Steps* of_queries,
                Steps* of_keys) {
  for (Steps* list : {of_queries, of_keys})
    for (int64_t x = 0; list && x < n; x++) list[x] = {n, nullptr, 0};
  each_pair(axis, ring, n, [&](int64_t x, int64_t, int64_t token) {
    of_queries[x].first = least(of_queries[x].first, token), of_queries[x].count++;
    if (of_keys) of_keys[token].first = least(of_keys[token].first, x), of_keys[token].count++;
  });
  for (Steps* list : {of_queries, of_keys})
    for (int64_t x = 0; list && x < n; x++) {
      list[x].begin = next;
      next += list[x].count;
      list[x].count = 0;
    }
  auto put = [&](Steps& steps, int64_t token, int64_t at) { steps.begin[steps.count++] = {(token - steps.first) * pitch * 4, at * 4}; };
  each_pair(axis, ring, n, [&](int64_t x, int64_t j, int64_t token) {
    put(of_queries[x], token, weight(x, j));
    if (of_keys) put(of_keys[token], x, weight(x, j));
  });
}

struct Product {
  const float* weights;   // of the first row of sums
  int64_t weights_pitch;  // floats to those of the next
  float* sums[kRows];
  int64_t first, held, end;  // rows of sums that sources are added to: [first, held) to what they hold, [held, end) are set
  const float* tokens;
  const Source* sources;
  int64_t count;       // of sources
  int64_t dim, pitch;  // channels of a token; floats from a token of a row to the next, of sums as well
};

// Calls f<first, end - first>() with 0 <= first < end <= N.
template <int kEnd, int A = kEnd, class F>
FOVEA_INLINE void with_first(int first, F&& f) {
  if constexpr (A > 1)
    if (kEnd - first < A) return with_first<kEnd, A - 1>(first, f);
  f.template operator()<kEnd - A, A>();
}
template <int N, class F>
FOVEA_INLINE void with_range(int first, int end, F&& f) {
  if constexpr (N > 1)
    if (end < N) return with_range<N - 1>(first, end, f);
  with_first<N>(first, f);
}

// Adds sources from s on, while they have the same range, to acc[kFirst, kFirst + A).
template <int kFirst, int A, int V>
FOVEA_INLINE const Source* add_sources(vf (&acc)[kRows][V], const Product& p, const Source* s, const float* tokens, const Steps& steps) {
  auto at = [](const float* p, int64_t bytes) { return reinterpret_cast<const float*>(reinterpret_cast<const char*>(p) + bytes); };
  const int64_t pitch = p.weights_pitch * 4;
  do {
    const float *row = tokens + s->row, *weights = p.weights + kFirst * p.weights_pitch + s->weights;
    asm("" : "+r"(row), "+r"(weights));  // or else their terms are added at every step
    for (const Step* step = steps.begin; step < steps.begin + steps.count; step++) {
      const float *token = at(row, step->token), *weight = at(weights, step->weight);
      asm("" : "+r"(token));  // one address, or else every vector of the token would take a register
      vf x[V];
      FOVEA_UNROLL
      for (int v = 0; v < V; v++) x[v] = load(token + v * kLanes);
      FOVEA_UNROLL
      for (int i = 0; i < A; i++) {
        if (i % 4 == 0) {  // an address for four weights: one for each would take all registers
          if (i) weight = at(weight, 4 * pitch);
          asm("" : "+r"(weight));
        }
        const vf w = broadcast(at(weight, i % 4 * pitch));
        FOVEA_UNROLL
        for (int v = 0; v < V; v++) acc[kFirst + i][v] = fma(w, x[v], acc[kFirst + i][v]);
      }
    }
    s++;
  } while (s < p.sources + p.count && s->first == kFirst && s->end == kFirst + A);
  return s;
}

// Sums at place `at`, V vectors of channels from d on.
template <int V>
FOVEA_INLINE void add_panel(const Product& p, const Steps& steps, int64_t at, int64_t d) {
  const int64_t sum = at * p.pitch + d, first = p.first, held = p.held, end = p.end;
  vf acc[kRows][V];
  FOVEA_UNROLL
  for (int i = 0; i < kRows; i++) {
    const float* from = i >= first && i < held ? p.sums[i] + sum : nullptr;
    FOVEA_UNROLL
    for (int v = 0; v < V; v++) acc[i][v] = from ? load(from + v * kLanes) : zero();
  }
  const float* tokens = p.tokens + steps.first * p.pitch + d;
  for (const Source* s = p.sources; s < p.sources + p.count;) {
    // Not inlined, the accumulators would live in memory.
    auto add = [&]<int kFirst, int A>() __attribute__((always_inline)) { s = add_sources<kFirst, A>(acc, p, s, tokens, steps); };
    with_range<kRows>(s->first, s->end, add);
  }
  FOVEA_UNROLL
  for (int i = 0; i < kRows; i++)
    if (i >= first && i < end) {
      float* to = p.sums[i] + sum;
      FOVEA_UNROLL
      for (int v = 0; v < V; v++) store(to + v * kLanes, acc[i][v]);
    }
}

// At places [from, to).
__attribute__((noinline)) void add_tokens(const Product& p, const Steps* steps, int64_t from, int64_t to) {
  const int64_t vectors = divide_up(p.dim, kLanes);
  for (int64_t at = from; at < to; at++)
    for (int64_t first = 0, width; first < vectors; first += width) {
      width = panel_width(first, vectors);
      if (width == 1) add_panel<1>(p, steps[at], at, first * kLanes);
      else if (width == 2) add_panel<2>(p, steps[at], at, first * kLanes);
      else add_panel<3>(p, steps[at], at, first * kLanes);
    }
}

// n tokens, `step` bytes apart, as rows of floats times a factor; 0 from dim to the end of its vector.
__attribute__((noinline)) void read_row(DType dtype, const char* tokens, int64_t step, int64_t sd, int64_t n, int64_t dim, float factor,
                                        float* to, int64_t pitch) {
  const int64_t vectors = sd == 1 ? dim / kLanes * kLanes : 0;
  with_float(dtype, [&]<class T>(TypeTag<T>) {
    for (int64_t i = 0; i < n; i++, tokens += step, to += pitch) {
      const T* from = reinterpret_cast<const T*>(tokens);
      if (dim % kLanes) store(to + dim / kLanes * kLanes, zero());
      for (int64_t d = 0; d < vectors; d += kLanes) store(to + d, load(from + d) * factor);
      for (int64_t d = vectors; d < dim; d++) to[d] = to_float(from[d * sd]) * factor;
    }
  });
}

// The reverse; every token has a factor, `factor_step` floats apart.
__attribute__((noinline)) void write_row(DType dtype, char* tokens, int64_t step, int64_t sd, int64_t n, int64_t dim, const float* factors,
                                         int64_t factor_step, const float* from, int64_t pitch) {
  const int64_t vectors = sd == 1 ? dim / kLanes * kLanes : 0;
  with_float(dtype, [&]<class T>(TypeTag<T>) {
    for (int64_t i = 0; i < n; i++, tokens += step, from += pitch) {
      T* to = reinterpret_cast<T*>(tokens);
      const float factor = factors[i * factor_step];
      for (int64_t d = 0; d < vectors; d += kLanes) store(to + d, load(from + d) * factor);
      for (int64_t d = vectors; d < dim; d++) to[d * sd] = narrow<T>(from[d] * factor);
    }
  });
}

}  // namespace
}  // namespace fovea::cpu
