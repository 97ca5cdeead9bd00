// Neighborhood attention and its gradients by plain double-precision loops. Shared by the tests of the kernels: the CPU's in this folder,
// the device's in test/gpu.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/neighborhood_params.h"

namespace fovea {

// A key that a query sees: its token, which element of a head's bias it gets, and its place in the query's window.
struct Neighbor {
  int64_t token, bias, slot;
};

inline std::vector<Neighbor> neighbors_of(const NeighborhoodParams& p, int64_t token) {
  std::vector<Neighbor> seen = {{0, 0, 0}};
  int64_t rest = token, pitch = p.tokens;
  for (const NeighborhoodAxis& a : p.axis) {
    pitch /= a.length;
    const int64_t x = rest / pitch, group = x % a.dilation, i = x / a.dilation, n = (a.length - group + a.dilation - 1) / a.dilation;
    rest %= pitch;
    const int64_t first = i / a.stride * a.stride;
    int64_t begin, end;
    if (a.causal) begin = std::max<int64_t>(std::min(first + a.stride - 1, n - 1) - a.kernel + 1, 0), end = i + 1;
    else begin = std::clamp<int64_t>(std::min(first + a.stride / 2, n - 1) - a.kernel / 2, 0, n - a.kernel), end = begin + a.kernel;
    std::vector<Neighbor> next;
    for (const Neighbor& s : seen)
      for (int64_t key = begin; key < end; key++)
        next.push_back({s.token + (key * a.dilation + group) * pitch, s.bias * (2 * a.kernel - 1) + key - i + a.kernel - 1,
                        s.slot * a.kernel + key - begin});
    seen = std::move(next);
  }
  return seen;
}

// The arrays of a call, contiguous and of the layouts that core/neighborhood_params.h names, in double.
struct NeighborhoodArrays {
  std::vector<double> q, k, v, extra_k, extra_v, rpb, dout, dlse;      // given; the last six may be empty
  std::vector<double> out, lse, dq, dk, dv, dextra_k, dextra_v, drpb;  // wanted
};

inline int64_t bias_size(const NeighborhoodParams& p) {
  int64_t size = 1;
  for (const NeighborhoodAxis& a : p.axis) size *= 2 * a.kernel - 1;
  return size;
}

// Fills what is wanted; of `every` queries one, the others are left zero.
inline void neighborhood_reference(const NeighborhoodParams& p, NeighborhoodArrays& a, int64_t every = 1) {
  const auto row = [](std::vector<double>& x, int64_t index, int64_t width) { return x.data() + index * width; };
  const int64_t rows = p.batch * p.tokens * p.heads_q, group = p.heads_q / p.heads_kv, table = bias_size(p);
  a.out.assign(static_cast<size_t>(rows * p.dim_v), 0), a.lse.assign(static_cast<size_t>(rows), 0);
  a.dq.assign(a.q.size(), 0), a.dk.assign(a.k.size(), 0), a.dv.assign(a.v.size(), 0), a.drpb.assign(a.rpb.size(), 0);
  a.dextra_k.assign(a.extra_k.size(), 0), a.dextra_v.assign(a.extra_v.size(), 0);
  struct Pair {
    double *k, *v, *dk, *dv;
    double* dbias;
    double weight, dweight;
  };
  for (int64_t token = 0; token < p.tokens; token++) {
    const std::vector<Neighbor> seen = neighbors_of(p, token);
    for (int64_t b = 0; b < p.batch; b++)
      for (int64_t h = 0; h < p.heads_q; h++) {
        const int64_t r = (b * p.tokens + token) * p.heads_q + h, head = h / group;
        if (r % every != 0) continue;
        std::vector<Pair> pairs;
        const double* q = row(a.q, r, p.dim);
        double high = -INFINITY, sum = 0;
        const auto add = [&](double* k, double* v, double* dk, double* dv, double bias, double* dbias) {
          double s = bias;
          for (int64_t d = 0; d < p.dim; d++) s += p.scale * q[d] * k[d];
          pairs.push_back({k, v, dk, dv, dbias, s, 0});
          high = std::max(high, s);
        };
        for (const Neighbor& n : seen) {
          const int64_t key = (b * p.tokens + n.token) * p.heads_kv + head, at = h * table + n.bias;
          add(row(a.k, key, p.dim), row(a.v, key, p.dim_v), row(a.dk, key, p.dim), row(a.dv, key, p.dim_v),
              a.rpb.empty() ? 0 : a.rpb[static_cast<size_t>(at)], a.rpb.empty() ? nullptr : row(a.drpb, at, 1));
        }
        for (int64_t e = 0; e < p.extra; e++) {
          const int64_t key = (b * p.extra + e) * p.heads_kv + head;
          add(row(a.extra_k, key, p.dim), row(a.extra_v, key, p.dim_v), row(a.dextra_k, key, p.dim), row(a.dextra_v, key, p.dim_v), 0,
              nullptr);
        }
        for (const Pair& x : pairs) sum += std::exp(x.weight - high);
        const auto at = static_cast<size_t>(r);
        a.lse[at] = high + std::log(sum);
        double* out = row(a.out, r, p.dim_v);
        for (Pair& x : pairs) {
          x.weight = std::exp(x.weight - a.lse[at]);
          for (int64_t d = 0; d < p.dim_v; d++) out[d] += x.weight * x.v[d];
        }
        if (a.dout.empty()) continue;
        const double* dout = row(a.dout, r, p.dim_v);
        double delta = a.dlse.empty() ? 0 : -a.dlse[at];
        for (int64_t d = 0; d < p.dim_v; d++) delta += out[d] * dout[d];
        for (const Pair& x : pairs) {
          double slope = -delta;
          for (int64_t d = 0; d < p.dim_v; d++) slope += dout[d] * x.v[d], x.dv[d] += x.weight * dout[d];
          slope *= x.weight;
          if (x.dbias) *x.dbias += slope;
          double* dq = row(a.dq, r, p.dim);
          for (int64_t d = 0; d < p.dim; d++) dq[d] += p.scale * slope * x.k[d], x.dk[d] += p.scale * slope * q[d];
        }
      }
  }
}

}  // namespace fovea
