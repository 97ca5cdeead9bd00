// Averages of rows by destination against double-precision loops: destinations of nothing, ids that name none, and widths around those of
// vectors.
#include "cpu/mean_rows.h"

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a few short lists.
struct Case {
  const char* name;
  int64_t groups = 2, count = 23, size = 7, width = 21;
  int64_t lowest = 0, beyond = 0;  // ids are from `lowest` to size - 1 + `beyond`
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one", .groups = 1, .count = 1, .size = 1, .width = 1},
    {.name = "nothing to average", .count = 0},
    {.name = "no destination", .count = 0, .size = 0},
    {.name = "no group", .groups = 0},
    {.name = "rows of nothing", .width = 0},
    {.name = "one destination", .count = 131, .size = 1},
    {.name = "most destinations of nothing", .count = 9, .size = 201},
    {.name = "whole vectors", .width = 64},
    {.name = "some registers of vectors", .width = 201},
    {.name = "more than are fetched ahead", .groups = 3, .count = 517, .size = 130, .width = 3},
    {.name = "ids below", .lowest = -3},
    {.name = "ids beyond", .count = 61, .beyond = 5},
    {.name = "only bad ids", .size = 0, .lowest = -2},
};

constexpr float kEpsilon = 0.25f;

struct Result {
  View out, inverse;
  int64_t bad;
  bool operator==(const Result&) const = default;
};

void check_case(const Case& c, DType dtype, double tolerance) {
  View src(dtype, {c.groups, c.count, c.width}, normals(c.groups * c.count * c.width));
  const std::vector<double> rows = src.values(), listed = whole_numbers(c.groups * c.count, c.lowest, c.size - 1 + c.beyond);
  View ids(DType::I32, {c.groups, c.count}, listed);
  std::vector<double> out(static_cast<size_t>(c.groups * c.size * c.width)), inverse(static_cast<size_t>(c.groups * c.size));
  double bad = -1;
  for (size_t i = 0; i < listed.size(); i++) {
    if (listed[i] < 0 || listed[i] >= static_cast<double>(c.size)) {
      if (bad < 0) bad = static_cast<double>(i);
      continue;
    }
    const auto to = i / static_cast<size_t>(c.count) * static_cast<size_t>(c.size) + static_cast<size_t>(listed[i]);
    const auto width = static_cast<size_t>(c.width);
    inverse[to]++;
    for (size_t d = 0; d < width; d++) out[to * width + d] += rows[i * width + d];
  }
  for (double& n : inverse) n = 1 / (n + kEpsilon);
  for (size_t i = 0; i < out.size(); i++) out[i] *= inverse[i / static_cast<size_t>(c.width)];
  at_each_level(Isa::Avx512, [&] {
    const Result got = same_for_threads(c.name, [&] {
      Result r{View(dtype, {c.groups, c.size, c.width}), View(DType::F32, {c.groups, c.size}), 0};
      View workspace(DType::I32, {c.groups, c.size + 1 + c.count});
      MeanRowsParams p{};
      p.src = src.data(), p.out = r.out.data(), p.dtype = dtype;
      p.groups = c.groups, p.count = c.count, p.size = c.size, p.width = c.width;
      p.ids = ids.data<int32_t>(), p.epsilon = kEpsilon;
      p.inverse = r.inverse.data<float>(), p.workspace = workspace.data<int32_t>();
      r.bad = dispatch_isa([&](auto isa) { return cpu::mean_rows<isa()>(p, ThreadPool::instance()); });
      return r;
    });
    expect_close(c.name, "averages", got.out.values(), out, tolerance);
    expect_close(c.name, "inverse", got.inverse.values(), inverse, 1e-6);
    expect_equal(c.name, "the first bad id", {static_cast<double>(got.bad)}, {bad});
  });
}

}  // namespace

int main() {
  for (const Case& c : kCases) check_case(c, DType::F32, 2e-6), check_case(c, DType::BF16, 0x1p-8), check_case(c, DType::F16, 0x1p-11);
  std::printf("mean_rows: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
