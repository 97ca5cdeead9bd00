// The k largest of rows against a stable sort: sizes around those of vectors and of the sample that bounds long rows, equals, and numbers
// that are none.
#include "cpu/select_top.h"

#include <functional>
#include <numeric>

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

double normal(int64_t, int64_t) { return std::normal_distribution<double>()(engine); }

// Fields that a case does not name are those of a few short rows.
struct Case {
  const char* name;
  int64_t rows = 3, n = 50, k = 7;
  std::function<double(int64_t i, int64_t n)> value = normal;
};

double few(int64_t, int64_t) { return static_cast<double>(uniform(0, 4)); }
double no_numbers(int64_t i, int64_t) {
  constexpr double kValues[] = {NAN, INFINITY, -INFINITY, -0.0, 0.0, -1, 1};
  return kValues[i * 31 % 7];
}
// Rows are sampled at equal steps from their first element on.
double large_where_sampled(int64_t i, int64_t n) { return static_cast<double>(i % (n / 128) == 0 ? 100 + i % 9 : i % 7); }
double small_where_sampled(int64_t i, int64_t n) { return i % (n / 128) == 0 ? -1 : static_cast<double>(i % 7); }

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one element", .n = 1, .k = 1},
    {.name = "all", .k = 50},
    {.name = "the largest", .n = 37, .k = 1},
    {.name = "whole vectors", .n = 64},
    {.name = "many rows", .rows = 1999, .n = 17, .k = 5},
    {.name = "equals", .value = few},
    {.name = "all equal", .n = 2051, .k = 300, .value = [](int64_t, int64_t) { return 2.0; }},
    {.name = "no numbers", .k = 20, .value = no_numbers},
    {.name = "no numbers in a long row", .n = 1501, .k = 400, .value = no_numbers},
    {.name = "a long row", .n = 16387, .k = 501},
    {.name = "a long row, one", .n = 1025, .k = 1},
    {.name = "a long row, nearly all", .n = 1025, .k = 1021},
    {.name = "a long row of equals", .n = 5003, .k = 1200, .value = few},
    {.name = "a bound too high", .n = 2048 + 5, .k = 160, .value = large_where_sampled},
    {.name = "a bound too low", .n = 2048 + 5, .k = 160, .value = small_where_sampled},
};

void check_case(const Case& c, DType dtype) {
  std::vector<double> values;
  for (int64_t i = 0; i < c.rows * c.n; i++) values.push_back(c.value(i % c.n, c.n));
  View x(dtype, {c.rows, c.n}, values);
  values = x.values();
  std::vector<double> want;
  for (int64_t row = 0; row < c.rows; row++) {
    const double* of_row = values.data() + row * c.n;
    std::vector<int64_t> order(static_cast<size_t>(c.n));
    std::iota(order.begin(), order.end(), 0);
    const auto before = [&](int64_t i, int64_t j) { return of_row[i] > of_row[j] || (std::isnan(of_row[i]) && !std::isnan(of_row[j])); };
    std::stable_sort(order.begin(), order.end(), before);
    std::sort(order.begin(), order.begin() + c.k);
    want.insert(want.end(), order.begin(), order.begin() + c.k);
  }
  at_each_level(Isa::Avx512, [&] {
    const View got = same_for_threads(c.name, [&] {
      View indices(DType::I32, {c.rows, c.k});
      const SelectTopParams p{x.data(), dtype, c.rows, c.n, c.k, indices.data<int32_t>()};
      dispatch_isa([&](auto isa) { cpu::select_top<isa()>(p, ThreadPool::instance()); });
      return indices;
    });
    expect_equal(c.name, name_of(dtype), got.values(), want);
  });
}

}  // namespace

int main() {
  for (const Case& c : kCases)
    for (DType dtype : {DType::F32, DType::BF16, DType::F16}) check_case(c, dtype);
  std::printf("select_top: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
