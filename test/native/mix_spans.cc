// Spans joined with their window against double-precision loops, in a random order of pairs: no window, spans and windows that saw nothing,
// and widths around those of vectors.
#include "cpu/mix_spans.h"

#include <numeric>

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a few queries.
struct Case {
  const char* name;
  int64_t rows = 13, spans = 3, dim = 21;
  bool window = true;
  double blind = 0;  // share of the log-sum-exps that are of nothing
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one", .rows = 1, .spans = 1, .dim = 1},
    {.name = "no row", .rows = 0},
    {.name = "no span", .spans = 0},
    {.name = "no dim", .dim = 0},
    {.name = "no window", .window = false},
    {.name = "no window, one span", .spans = 1, .window = false},
    {.name = "some saw nothing", .rows = 40, .blind = 0.5},
    {.name = "all saw nothing", .blind = 1},
    {.name = "whole vectors", .dim = 64},
    {.name = "wide", .rows = 67, .spans = 2, .dim = 133},
    {.name = "many pairs", .rows = 5501, .spans = 3, .dim = 2},
};

constexpr double kLowest = -1e30;  // what a log-sum-exp counts at least

std::vector<double> log_sums(int64_t count, double blind) {
  std::vector<double> sums = normals(count);
  for (double& x : sums) x = chance(blind) ? -INFINITY : 3 * x;
  return sums;
}

void check_case(const Case& c, DType dtype, double tolerance) {
  const int64_t count = c.rows * c.spans;
  View out(dtype, {count, c.dim}, normals(count * c.dim)), near(dtype, {c.rows, c.dim}, normals(c.rows * c.dim));
  View lse(DType::F32, {count}, log_sums(count, c.blind)), near_lse(DType::F32, {c.rows}, log_sums(c.rows, c.blind));
  View gate(DType::F32, {c.rows, c.spans}, normals(count));
  std::vector<double> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), engine);
  View pairs(DType::I32, {count}, order);

  const std::vector<double> outs = out.values(), nears = near.values(), sums = lse.values(), near_sums = near_lse.values();
  const std::vector<double> gates = gate.values();
  const auto dim = static_cast<size_t>(c.dim);
  std::vector<double> want(static_cast<size_t>(c.rows) * dim), rest(static_cast<size_t>(c.rows), 1);
  for (size_t i = 0; i < order.size(); i++) {
    const auto pair = static_cast<size_t>(order[i]), row = pair / static_cast<size_t>(c.spans);
    double weight = gates[pair];
    if (c.window) weight /= 1 + std::exp(std::max(near_sums[row], kLowest) - std::max(sums[i], kLowest));
    rest[row] -= weight;
    for (size_t d = 0; d < dim; d++) want[row * dim + d] += weight * outs[i * dim + d];
  }
  for (size_t i = 0; i < want.size() && c.window; i++) want[i] += rest[i / dim] * nears[i];

  at_each_level(Isa::Avx512, [&] {
    const View got = same_for_threads(c.name, [&] {
      View result(dtype, {c.rows, c.dim}), places(DType::I32, {count});
      MixSpansParams p{};
      p.dtype = dtype, p.rows = c.rows, p.spans = c.spans, p.dim = c.dim;
      p.out = out.data(), p.lse = lse.data<float>(), p.pairs = pairs.data<int32_t>(), p.gate = gate.data<float>();
      if (c.window) p.near = near.data(), p.near_lse = near_lse.data<float>();
      p.places = places.data<int32_t>(), p.result = result.data();
      dispatch_isa([&](auto isa) { cpu::mix_spans<isa()>(p, ThreadPool::instance()); });
      return result;
    });
    expect_close(c.name, name_of(dtype), got.values(), want, tolerance);
  });
}

}  // namespace

int main() {
  for (const Case& c : kCases) check_case(c, DType::F32, 5e-6), check_case(c, DType::BF16, 0x1p-8), check_case(c, DType::F16, 0x1p-11);
  std::printf("mix_spans: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
