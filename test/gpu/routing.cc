// What routed mechanisms are made of, on a card against the CPU's kernels: selections, spans, lists of rows, averages and merges.
//   routing [--scale=1]   multiplies the sizes
#include "cpu/attention_merge.h"
#include "cpu/causal_ranges.h"
#include "cpu/cluster_top.h"
#include "cpu/head_rows.h"
#include "cpu/mean_rows.h"
#include "cpu/mix_spans.h"
#include "cpu/region_top.h"
#include "cpu/select_top.h"
#include "cpu/span_order.h"
#include "cpu/span_search.h"
#include "cuda/attention_merge.h"
#include "cuda/causal_ranges.h"
#include "cuda/cluster_top.h"
#include "cuda/head_rows.h"
#include "cuda/mean_rows.h"
#include "cuda/mix_spans.h"
#include "cuda/region_top.h"
#include "cuda/select_top.h"
#include "cuda/span_order.h"
#include "cuda/span_search.h"
#include "on_cpu.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

int64_t scale = 1;

void check_select_top(Comparison& on) {
  for (DType dtype : kFloats)
    for (int64_t n : {5, 130, 2500}) {
      const int64_t rows = 7 * scale, k = (n + 3) / 4;
      Twin x = on.integers(dtype, static_cast<size_t>(rows * n), -50, 50);  // many equal elements
      Twin indices = on.blank(DType::I32, static_cast<size_t>(rows * k));
      on.check(
          named("select top", dtype), {&indices}, 0,
          [&](Side side) { return SelectTopParams{x.at(side), dtype, rows, n, k, indices.at<int32_t>(side)}; }, FOVEA_ON_CPU(select_top),
          cuda::select_top);
    }
}

void check_cluster_top(Comparison& on) {
  const int64_t batch = 2, heads = 2, length = 190 * scale, clusters = 70, dim = 24, window = 31;
  Twin centroids = on.uniform(DType::F32, static_cast<size_t>(heads * clusters * dim), -1, 1);
  Twin indices = on.blank(DType::I32, static_cast<size_t>(batch * heads * clusters * window));
  for (DType dtype : kFloats) {
    Twin x = on.uniform(dtype, static_cast<size_t>(batch * heads * length * dim), -1, 1);
    on.check(
        named("cluster top", dtype), {&indices}, 0,
        [&](Side side) {
          const AttentionTensor rows = {x.at(side), heads * length * dim, length * dim, dim, 1};
          return ClusterTopParams{
              dtype, batch, heads, length, clusters, dim, rows, centroids.at<float>(side), window, indices.at<int32_t>(side)};
        },
        FOVEA_ON_CPU(cluster_top), cuda::cluster_top);
  }
}

void check_region_top(Comparison& on) {
  const int64_t batch = 2 * scale, height = 13, width = 22, region_height = 4, region_width = 4, down = 4, across = 6,
                regions = down * across, top = 5;
  const auto listed = static_cast<size_t>(batch * regions * top);
  for (DType dtype : kFloats)
    for (int64_t channels : {36, 30}) {  // whole vectors of 4, and not
      const auto n = static_cast<size_t>(batch * height * width * channels);
      Twin q = on.uniform(dtype, n, -1, 1), k = on.uniform(dtype, n, -1, 1);
      Twin means = on.blank(DType::F32, static_cast<size_t>(2 * batch * regions * channels));
      Twin indices = on.blank(DType::I32, listed), affinities = on.blank(DType::F32, listed);
      on.check(
          named("region top", dtype), {&indices, &affinities}, tolerance_of(DType::F32),
          [&](Side side) {
            return RegionTopParams{q.at(side),
                                   k.at(side),
                                   dtype,
                                   batch,
                                   height,
                                   width,
                                   channels,
                                   region_height,
                                   region_width,
                                   down,
                                   across,
                                   0.25f,
                                   top,
                                   means.at<float>(side),
                                   indices.at<int32_t>(side),
                                   affinities.at<float>(side)};
          },
          FOVEA_ON_CPU(region_top), cuda::region_top);
    }
}

// The device looks for the first key in use itself.
void search_on_cpu(const SpanSearchParams& p) {
  for (int64_t b = 0; p.key_mask && b < p.batch; b++) {
    const uint8_t* mask = p.key_mask + b * p.len_kv;
    p.first[b] = std::find(mask, mask + p.len_kv, 1) - mask;
  }
  cpu::span_search<Isa::Baseline>(p, pool(), nullptr);
}

// Scores that are sums of small integers are the same in any order, so that both sides keep the same keys. Dims decide how many elements
// a lane reads at once.
void check_span_search(Comparison& on) {
  const int64_t batch = 2, heads_q = 4, heads_kv = 2, len_q = 40 * scale, len_kv = len_q + 9, offset = 9, spans = 3, steps = 2,
                distances = 12;
  const int64_t entries = len_kv + 1;
  Twin distance(on.gpu(), DType::I32, static_cast<size_t>(distances), [](size_t i) { return static_cast<double>(i + i * i / 3); });
  Twin reach = on.integers(DType::I32, static_cast<size_t>(steps * 3 * entries), 1, 6);
  Twin back = on.integers(DType::I32, static_cast<size_t>(entries), 0, 9),
       forward = on.integers(DType::I32, static_cast<size_t>(entries), 0, 9);
  Twin key_mask = on.integers(DType::U8, static_cast<size_t>(batch * len_kv), 0, 1);
  const auto found = static_cast<size_t>(batch * heads_q * len_q * spans);
  for (DType dtype : kFloats)
    for (int64_t dim : {24, 40, 96})
      for (bool masked : {false, true}) {
        Twin q = on.integers(dtype, static_cast<size_t>(batch * heads_q * len_q * dim), -2, 2);
        Twin k = on.integers(dtype, static_cast<size_t>(batch * heads_kv * len_kv * dim), -2, 2);
        Twin anchors = on.blank(DType::I32, found), scores = on.blank(DType::F32, found), ranges = on.blank(DType::I32, 2 * found);
        Twin first = on.filled(DType::I64, static_cast<size_t>(batch), 0);
        const auto params = [&](Side side) {
          SpanSearchParams p{};
          p.dtype = dtype, p.batch = batch, p.heads_q = heads_q, p.heads_kv = heads_kv, p.len_q = len_q, p.len_kv = len_kv, p.dim = dim;
          p.q = {q.at(side), heads_q * len_q * dim, len_q * dim, dim, 1}, p.k = {k.at(side), heads_kv * len_kv * dim, len_kv * dim, dim, 1};
          p.q_offset = offset;
          if (masked) p.key_mask = key_mask.at<uint8_t>(side), p.first = first.at<int64_t>(side);
          p.distances = distance.at<int32_t>(side), p.distance_count = distances;
          p.steps = reach.at<int32_t>(side), p.refinements = steps;
          p.span_back = back.at<int32_t>(side), p.span_forward = forward.at<int32_t>(side), p.table = entries;
          p.window = 5, p.spans = spans;
          p.anchors = anchors.at<int32_t>(side), p.scores = scores.at<float>(side), p.ranges = ranges.at<int32_t>(side);
          return p;
        };
        on.check(named("span search", dtype), {&anchors, &scores, &ranges, &first}, 0, params, search_on_cpu, cuda::span_search);
      }
}

void check_span_order(Comparison& on) {
  const int64_t lists = 4, group = 2, queries = 300 * scale, spans = 3, len_kv = 500, count = lists * group * queries * spans;
  const auto n = static_cast<size_t>(count);
  Twin begins = on.integers(DType::I32, n, 0, len_kv - 20), pairs = on.blank(DType::I32, n), rows = on.blank(DType::I32, n);
  Twin ranges = Twin(on.gpu(), DType::I32, 2 * n, [&](size_t i) {
    const auto begin = begins.at<int32_t>(Side::Host)[i / 2];
    return static_cast<double>(i % 2 == 0 ? begin : begin + begin % 20);  // some are empty
  });
  Twin sorted = on.blank(DType::I32, 2 * n);
  on.check(
      "span order", {&pairs, &rows, &sorted}, 0,
      [&](Side side) {
        return SpanOrderParams{
            ranges.at<int32_t>(side), lists, group, queries, spans, len_kv, pairs.at<int32_t>(side), rows.at<int32_t>(side),
            sorted.at<int32_t>(side)};
      },
      FOVEA_ON_CPU(span_order), FOVEA_INDEXED(span_order));
}

void check_lists(Comparison& on) {
  const int64_t lists = 6, queries = 200 * scale, keys = 170;
  const auto rising = [](int64_t each) { return [each](size_t i) { return static_cast<double>(static_cast<int64_t>(i) % each * 5 / 3); }; };
  Twin q_rows(on.gpu(), DType::I32, static_cast<size_t>(lists * queries), rising(queries));
  Twin kv_rows(on.gpu(), DType::I32, static_cast<size_t>(lists * keys), rising(keys));
  Twin ranges = on.blank(DType::I32, static_cast<size_t>(2 * lists * queries));
  on.check(
      "causal ranges", {&ranges}, 0,
      [&](Side side) {
        return CausalRangesParams{q_rows.at<int32_t>(side), kv_rows.at<int32_t>(side), lists, queries, keys, ranges.at<int32_t>(side)};
      },
      FOVEA_ON_CPU(causal_ranges), cuda::causal_ranges);

  const int64_t batch = 3, tokens = 700 * scale, heads = 5;
  Twin active = on.integers(DType::U8, static_cast<size_t>(batch * tokens * heads), 0, 1);
  Twin rows = on.blank(DType::I32, static_cast<size_t>(batch * tokens * heads));
  on.check(
      "head rows", {&rows}, 0,
      [&](Side side) {
        return HeadRowsParams{active.at<uint8_t>(side), batch, tokens, heads, rows.at<int32_t>(side)};
      },
      FOVEA_ON_CPU(head_rows), cuda::head_rows);
}

void check_averages(Comparison& on) {
  const int64_t groups = 3, count = 1500 * scale, size = 90, width = 40;
  Twin ids = on.integers(DType::I32, static_cast<size_t>(groups * count), 0, size - 1);
  Twin work = on.blank(DType::I32, static_cast<size_t>(groups * (size + 1 + count)));
  for (DType dtype : kFloats) {
    Twin src = on.uniform(dtype, static_cast<size_t>(groups * count * width), -1, 1);
    Twin out = on.blank(dtype, static_cast<size_t>(groups * size * width)),
         inverse = on.blank(DType::F32, static_cast<size_t>(groups * size));
    on.check(
        named("mean rows", dtype), {&out, &inverse}, tolerance_of(dtype),
        [&](Side side) {
          return MeanRowsParams{
              src.at(side),          out.at(side), dtype, groups, count, size, width, ids.at<int32_t>(side), 1e-5f, inverse.at<float>(side),
              work.at<int32_t>(side)};
        },
        FOVEA_ON_CPU(mean_rows), FOVEA_INDEXED(mean_rows));

    const int64_t rows = 60 * scale, spans = 3, dim = 40, pair_count = rows * spans;
    const auto n = static_cast<size_t>(pair_count);
    Twin parts = on.uniform(dtype, n * static_cast<size_t>(dim), -1, 1), lse = on.uniform(DType::F32, n, -3, 3);
    Twin near = on.uniform(dtype, static_cast<size_t>(rows * dim), -1, 1),
         near_lse = on.uniform(DType::F32, static_cast<size_t>(rows), -3, 3);
    Twin pairs(on.gpu(), DType::I32, n, [&](size_t i) { return static_cast<double>(static_cast<int64_t>(i) * 7 % pair_count); });
    Twin gate = on.uniform(DType::F32, n, 0, 1), places = on.blank(DType::I32, n);
    Twin result = on.blank(dtype, static_cast<size_t>(rows * dim));
    for (bool window : {false, true})
      on.check(
          named("mix spans", dtype), {&result}, tolerance_of(dtype),
          [&](Side side) {
            return MixSpansParams{dtype,
                                  rows,
                                  spans,
                                  dim,
                                  parts.at(side),
                                  lse.at<float>(side),
                                  pairs.at<int32_t>(side),
                                  gate.at<float>(side),
                                  window ? near.at(side) : nullptr,
                                  window ? near_lse.at<float>(side) : nullptr,
                                  places.at<int32_t>(side),
                                  result.at(side)};
          },
          FOVEA_ON_CPU(mix_spans), FOVEA_INDEXED(mix_spans));
  }
}

// Lists of parts are the host's on both sides.
struct Parts {
  std::vector<const void*> outs;
  std::vector<const float*> lses;
  std::vector<void*> douts;
  std::vector<float*> dlses;
};

void check_merge(Comparison& on) {
  const int64_t rows = 50 * scale, count = 3;
  for (DType dtype : kFloats)
    for (int64_t dim : {64, 13}) {
      const auto n = static_cast<size_t>(rows * dim), r = static_cast<size_t>(rows);
      std::vector<std::unique_ptr<Twin>> outs, lses, douts, dlses;
      std::vector<Twin*> gradients;
      for (int64_t i = 0; i < count; i++) {
        outs.push_back(std::unique_ptr<Twin>(new Twin(on.uniform(dtype, n, -1, 1))));
        lses.push_back(std::unique_ptr<Twin>(new Twin(on.uniform(DType::F32, r, -4, 4))));
        douts.push_back(std::unique_ptr<Twin>(new Twin(on.blank(dtype, n))));
        dlses.push_back(std::unique_ptr<Twin>(new Twin(on.blank(DType::F32, r))));
        gradients.insert(gradients.end(), {douts.back().get(), dlses.back().get()});
      }
      Twin out = on.blank(dtype, n), lse = on.blank(DType::F32, r), dout = on.uniform(dtype, n, -1, 1),
           dlse = on.uniform(DType::F32, r, -1, 1);
      Parts lists;
      const auto forward = [&](Side side) {
        lists = {};
        for (size_t i = 0; i < outs.size(); i++) {
          lists.outs.push_back(outs[i]->at(side)), lists.lses.push_back(lses[i]->at<float>(side));
          lists.douts.push_back(douts[i]->at(side)), lists.dlses.push_back(dlses[i]->at<float>(side));
        }
        return AttentionMergeParams{dtype, count, rows, dim, lists.outs.data(), lists.lses.data(), out.at(side), lse.at<float>(side)};
      };
      on.check(named("merge", dtype), {&out, &lse}, tolerance_of(dtype), forward, FOVEA_ON_CPU(attention_merge), cuda::attention_merge);
      const auto backward = [&](Side side) {
        const AttentionMergeParams p = forward(side);
        return AttentionMergeGrads{p, dout.at(side), dlse.at<float>(side), lists.douts.data(), lists.dlses.data()};
      };
      on.check(named("merge backward", dtype), gradients, tolerance_of(dtype), backward, FOVEA_ON_CPU(attention_merge_backward),
               cuda::attention_merge_backward);
    }
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("routing");
    Comparison on(gpu, report);
    scale = static_cast<int64_t>(argument(argc, argv, "scale", 1));
    check_select_top(on);
    check_cluster_top(on);
    check_region_top(on);
    check_span_search(on);
    check_span_order(on);
    check_lists(on);
    check_averages(on);
    check_merge(on);
    return report.finish();
  });
}
