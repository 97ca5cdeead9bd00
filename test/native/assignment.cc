// Assignments whose only optimum is known by construction, and small ones with equal costs against every choice there is.
//
// The constructed costs are u[row] + v[column] + slack, slack 0 at one hidden column of each row and positive elsewhere, v 0 at columns
// that are nobody's and below elsewhere: whatever else is chosen costs more.
#include "cpu/assignment.h"

#include <numeric>

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a few small matrices.
struct Case {
  const char* name;
  int64_t batch = 3, rows = 7, columns = 11;
  bool equals = false;  // costs of few values instead of a hidden choice
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one", .batch = 1, .rows = 1, .columns = 1},
    {.name = "no matrix", .batch = 0},
    {.name = "one row", .rows = 1},
    {.name = "square", .rows = 16, .columns = 16},
    {.name = "a column more", .rows = 16, .columns = 17},
    {.name = "wide", .rows = 5, .columns = 301},
    {.name = "large", .batch = 2, .rows = 61, .columns = 67},
    {.name = "many matrices", .batch = 101, .rows = 3, .columns = 4},
    {.name = "equals", .batch = 20, .rows = 5, .columns = 6, .equals = true},
    {.name = "square, equals", .batch = 20, .rows = 6, .columns = 6, .equals = true},
};

std::vector<double> costs_with_hidden(const Case& c, std::vector<double>& hidden) {
  std::vector<double> costs;
  for (int64_t n = 0; n < c.batch; n++) {
    std::vector<int64_t> columns(static_cast<size_t>(c.columns));
    std::iota(columns.begin(), columns.end(), 0);
    std::shuffle(columns.begin(), columns.end(), engine);
    const std::vector<double> u = whole_numbers(c.rows, -50, 50);
    std::vector<double> v(static_cast<size_t>(c.columns));
    for (int64_t i = 0; i < c.rows; i++) v[static_cast<size_t>(columns[static_cast<size_t>(i)])] = static_cast<double>(uniform(-30, 0));
    for (size_t i = 0; i < u.size(); i++) {
      for (size_t j = 0; j < v.size(); j++)
        costs.push_back(u[i] + v[j] + (columns[i] == static_cast<int64_t>(j) ? 0 : static_cast<double>(uniform(1, 20))));
      hidden.push_back(static_cast<double>(columns[i]));
    }
  }
  return costs;
}

// The least that the rows from `row` on cost with the columns that `taken` does not have.
double least(const double* costs, int64_t rows, int64_t columns, int64_t row, uint32_t taken) {
  if (row == rows) return 0;
  double best = INFINITY;
  for (int64_t j = 0; j < columns; j++)
    if (!(taken >> j & 1)) best = std::min(best, costs[row * columns + j] + least(costs, rows, columns, row + 1, taken | 1u << j));
  return best;
}

// What the choice of each matrix costs, NaN where a column is none or not the row's alone.
std::vector<double> totals(const Case& c, const std::vector<double>& costs, const std::vector<double>& chosen) {
  std::vector<double> sums(static_cast<size_t>(c.batch));
  for (size_t i = 0; i < chosen.size(); i++) {
    const size_t n = i / static_cast<size_t>(c.rows), first = n * static_cast<size_t>(c.rows);
    const bool fine = chosen[i] >= 0 && chosen[i] < static_cast<double>(c.columns) &&
                      std::find(chosen.begin() + static_cast<int64_t>(first), chosen.begin() + static_cast<int64_t>(i), chosen[i]) ==
                          chosen.begin() + static_cast<int64_t>(i);
    sums[n] += fine ? costs[i * static_cast<size_t>(c.columns) + static_cast<size_t>(chosen[i])] : NAN;
  }
  return sums;
}

struct Result {
  View chosen;
  bool finite;
  bool operator==(const Result&) const = default;
};

Result run(const Case& c, const std::vector<double>& costs) {
  View given(DType::F64, {c.batch, c.rows, c.columns}, costs);
  return same_for_threads(c.name, [&] {
    Result r{View(DType::I32, {c.batch, c.rows}), false};
    const cpu::AssignmentParams p{c.batch, c.rows, c.columns, given.data<double>(), r.chosen.data<int32_t>()};
    r.finite = dispatch_isa([&](auto isa) { return cpu::assignment<isa()>(p, ThreadPool::instance()); });
    return r;
  });
}

void check_case(const Case& c) {
  std::vector<double> hidden, best;
  std::vector<double> costs = c.equals ? whole_numbers(c.batch * c.rows * c.columns, 0, 3) : costs_with_hidden(c, hidden);
  for (int64_t n = 0; n < c.batch && c.equals; n++) best.push_back(least(costs.data() + n * c.rows * c.columns, c.rows, c.columns, 0, 0));
  at_each_level(Isa::Avx512, [&] {
    const Result got = run(c, costs);
    expect_equal(c.name, "finite", {static_cast<double>(got.finite)}, {1});
    if (c.equals) expect_equal(c.name, "totals", totals(c, costs, got.chosen.values()), best);
    else expect_equal(c.name, "columns", got.chosen.values(), hidden);
  });
}

void refuses_costs_that_are_not_finite() {
  const Case c{.name = "not finite"};
  for (double odd : {NAN, INFINITY, -INFINITY}) {
    std::vector<double> hidden, costs = costs_with_hidden(c, hidden);
    costs.back() = odd;
    at_each_level(Isa::Avx512, [&] {
      const Result got = run(c, costs);
      expect_equal(c.name, "finite", {static_cast<double>(got.finite)}, {0});
      expect_equal(c.name, "columns", got.chosen.values(), std::vector<double>(static_cast<size_t>(c.batch * c.rows), -1));
    });
  }
}

}  // namespace

int main() {
  for (const Case& c : kCases) check_case(c);
  refuses_costs_that_are_not_finite();
  std::printf("assignment: %zu cases, %d failures\n", std::size(kCases) + 1, failures);
  return failures != 0;
}
