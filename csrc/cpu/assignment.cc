// The Hungarian method by shortest augmenting paths: rows enter one by one; from the new row a path of reduced costs grows column by column
// (as Dijkstra's, over a dense graph) until it meets a column that nobody has, and the columns along it change hands. Potentials of rows
// and columns keep reduced costs from falling below 0. O(rows^2 columns) a matrix; matrices are spread over threads. Of equal costs the
// first column wins.
#include "cpu/assignment.h"

#include "cpu/pieces.h"
#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr double kInfinity = __builtin_inf();

// Scratch of one matrix.
struct State {
  double *row_potential, *column_potential, *distance;
  int64_t *owner, *before;  // of a column: its row; the column before it on the path; -1 = none
  bool* reached;

  State(const AssignmentParams& p, Pieces& pieces)
      : row_potential(pieces.take<double>(p.rows)),
        column_potential(pieces.take<double>(p.columns)),
        distance(pieces.take<double>(p.columns)),
        owner(pieces.take<int64_t>(p.columns)),
        before(pieces.take<int64_t>(p.columns)),
        reached(pieces.take<bool>(p.columns)) {}
};

// Gives `row` a column.
void enter(const double* costs, int64_t columns, int64_t row, const State& s) {
  for (int64_t j = 0; j < columns; j++) s.distance[j] = kInfinity, s.reached[j] = false;
  int64_t column = -1, current = row;
  do {
    if (column >= 0) {
      s.reached[column] = true;
      current = s.owner[column];
    }
    const double* line = costs + current * columns;
    const double potential = s.row_potential[current];
    double step = kInfinity;
    int64_t next = -1;
    for (int64_t j = 0; j < columns; j++) {
      if (s.reached[j]) continue;
      const double reduced = line[j] - potential - s.column_potential[j];
      if (reduced < s.distance[j]) s.distance[j] = reduced, s.before[j] = column;
      if (s.distance[j] < step) step = s.distance[j], next = j;
    }
    s.row_potential[row] += step;
    for (int64_t j = 0; j < columns; j++) {
      if (s.reached[j]) {
        s.row_potential[s.owner[j]] += step;
        s.column_potential[j] -= step;
      } else {
        s.distance[j] -= step;
      }
    }
    column = next;
  } while (s.owner[column] >= 0);
  while (column >= 0) {
    const int64_t previous = s.before[column];
    s.owner[column] = previous >= 0 ? s.owner[previous] : row;
    column = previous;
  }
}

bool all_finite(const double* values, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (!(values[i] - values[i] == 0)) return false;
  return true;
}

}  // namespace

template <>
bool assignment<kIsa>(const AssignmentParams& p, ThreadPool& pool) {
  const int64_t size = p.rows * p.columns;
  if (!all_finite(p.costs, p.batch * size)) return false;
  Pieces needed(nullptr);
  State(p, needed);
  const size_t bytes = static_cast<size_t>(needed.bytes());
  pool.run(p.batch, [&](int64_t n, int thread) {
    Pieces pieces(pool.scratch(thread, bytes));
    const State s(p, pieces);
    for (int64_t i = 0; i < p.rows; i++) s.row_potential[i] = 0;
    for (int64_t j = 0; j < p.columns; j++) s.column_potential[j] = 0, s.owner[j] = -1;
    for (int64_t i = 0; i < p.rows; i++) enter(p.costs + n * size, p.columns, i, s);
    for (int64_t j = 0; j < p.columns; j++)
      if (s.owner[j] >= 0) p.chosen[n * p.rows + s.owner[j]] = static_cast<int32_t>(j);
  });
  return true;
}

}  // namespace fovea::cpu
