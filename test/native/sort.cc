// Sorted rows and their first k against a stable sort, in every dtype and both directions: lengths around those of insertion, of blocks and
// of tiles, equals, and numbers that are none.
#include "cpu/sort.h"

#include <numeric>

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

enum class Values { Spread, Few, Same, Odd };

// Fields that a case does not name are those of a few short rows.
struct Case {
  const char* name;
  int64_t rows = 3, n = 29, k = 29;
  Values values = Values::Spread;
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one element", .n = 1, .k = 1},
    {.name = "no row", .rows = 0},
    {.name = "nothing of a row", .k = 0},
    {.name = "the last by insertion", .n = 48, .k = 48},
    {.name = "the first by bytes", .n = 49, .k = 49},
    {.name = "a long row", .n = 1001, .k = 1001},
    {.name = "a row longer than a tile", .rows = 2, .n = 8197, .k = 8197},
    {.name = "many rows", .rows = 1999, .n = 17, .k = 17},
    {.name = "few values", .n = 301, .k = 301, .values = Values::Few},
    {.name = "all equal", .n = 130, .k = 130, .values = Values::Same},
    {.name = "odd numbers", .n = 211, .k = 211, .values = Values::Odd},
    {.name = "odd numbers by insertion", .n = 31, .k = 31, .values = Values::Odd},
    {.name = "the first", .n = 65, .k = 1},
    {.name = "the first of a block", .n = 64, .k = 63},
    {.name = "the first of some blocks", .n = 517, .k = 64},
    {.name = "more than are kept in order", .n = 517, .k = 65},
    {.name = "the first of few values", .n = 517, .k = 20, .values = Values::Few},
    {.name = "the first of equals", .n = 130, .k = 5, .values = Values::Same},
    {.name = "the first of odd numbers", .n = 211, .k = 40, .values = Values::Odd},
};

constexpr int64_t kExact = int64_t{1} << 53;  // whole numbers up to here are doubles

double value_of(Values values, DType dtype) {
  constexpr double kOdd[] = {NAN, -NAN, INFINITY, -INFINITY, -0.0, 0.0, -1, 1, 1e-40, -1e-40};
  if (values == Values::Same) return 1;
  if (values == Values::Few) return static_cast<double>(uniform(0, dtype == DType::Bool ? 1 : 4));
  if (values == Values::Odd && is_floating(dtype)) return kOdd[uniform(0, std::size(kOdd) - 1)];
  switch (dtype) {
    case DType::Bool: return static_cast<double>(uniform(0, 1));
    case DType::U8: return static_cast<double>(uniform(0, 255));
    case DType::I32: return static_cast<double>(uniform(INT32_MIN, INT32_MAX));
    case DType::I64: return static_cast<double>(uniform(-kExact, kExact));
    default: return std::normal_distribution<double>(0, 100)(engine);
  }
}

struct Result {
  View values, indices;
  bool operator==(const Result&) const = default;
};

void check_case(const Case& c, DType dtype, bool descending) {
  std::vector<double> given;
  for (int64_t i = 0; i < c.rows * c.n; i++) given.push_back(value_of(c.values, dtype));
  View x(dtype, {c.rows, c.n}, given);
  given = x.values();
  std::vector<double> values, indices;
  for (int64_t row = 0; row < c.rows; row++) {
    const double* of_row = given.data() + row * c.n;
    std::vector<int64_t> order(static_cast<size_t>(c.n));
    std::iota(order.begin(), order.end(), 0);
    const auto less = [](double a, double b) { return a < b || (!std::isnan(a) && std::isnan(b)); };
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t i, int64_t j) { return descending ? less(of_row[j], of_row[i]) : less(of_row[i], of_row[j]); });
    order.resize(static_cast<size_t>(c.k));
    for (int64_t i : order) values.push_back(of_row[i]), indices.push_back(static_cast<double>(i));
  }
  at_each_level(Isa::Avx512, [&] {
    const Result got = same_for_threads(c.name, [&] {
      Result r{View(dtype, {c.rows, c.k}), View(DType::I32, {c.rows, c.k})};
      const SortParams p{x.data(), dtype, c.rows, c.n, c.k, descending, r.values.data(), r.indices.data<int32_t>()};
      dispatch_isa([&](auto isa) { cpu::sort<isa()>(p, ThreadPool::instance()); });
      return r;
    });
    expect_equal(c.name, name_of(dtype), got.values.values(), values);
    expect_equal(c.name, descending ? "falling indices" : "rising indices", got.indices.values(), indices);
  });
}

}  // namespace

int main() {
  for (const Case& c : kCases)
    for (DType dtype : {DType::F32, DType::BF16, DType::F16, DType::F64, DType::I32, DType::I64, DType::U8, DType::Bool})
      for (bool descending : {false, true}) check_case(c, dtype, descending);
  std::printf("sort: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
