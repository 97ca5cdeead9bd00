// Sums of rows by destination: a stable counting sort lists the sources of each destination in rising order, and a destination is then the
// sum of its list, a block of columns held in registers: each output is written once, in an order of additions that nothing changes.
#pragma once

#include "cpu/float_types.h"
#include "cpu/indices.h"

namespace fovea::cpu {
namespace {

// starts[r] to starts[r + 1] becomes the range of `order` that holds the positions i < count with id_at(i) = r < size. Positions whose id
// is outside are noted as first + i and listed nowhere.
template <class Index, class IdAt>
void sort_by_id(int64_t count, int64_t size, IdAt&& id_at, Index* starts, Index* order, int64_t first, FirstBad& bad) {
  for (int64_t r = 0; r <= size; r++) starts[r] = 0;
  for (int64_t i = 0; i < count; i++) {
    const int64_t id = id_at(i);
    if (in_range(id, size)) starts[id]++;
    else bad.note(first + i);
  }
  Index sum = 0;
  for (int64_t r = 0; r <= size; r++) {
    const Index n = starts[r];
    starts[r] = sum;
    sum += n;
  }
  for (int64_t i = 0; i < count; i++) {
    const int64_t id = id_at(i);
    if (in_range(id, size)) order[starts[id]++] = static_cast<Index>(i);
  }
  for (int64_t r = size; r > 0; r--) starts[r] = starts[r - 1];
  starts[0] = 0;
}

// out[c] = factor times the sum of column c of the n listed rows, for columns [begin, end).
template <int kRegisters, class T, class Index>
void sum_listed_rows(const T* src, T* out, int64_t width, const Index* order, int64_t n, int64_t begin, int64_t end, float factor) {
  int64_t column = begin;
  for (; column + kRegisters * kLanes <= end; column += kRegisters * kLanes) {
    vf acc[kRegisters];
    FOVEA_UNROLL
    for (int k = 0; k < kRegisters; k++) acc[k] = zero();
    for (int64_t i = 0; i < n; i++) {
      const T* row = src + order[i] * width + column;
      FOVEA_UNROLL
      for (int k = 0; k < kRegisters; k++) acc[k] += load(row + k * kLanes);
    }
    FOVEA_UNROLL
    for (int k = 0; k < kRegisters; k++) store(out + column + k * kLanes, acc[k] * set1(factor));
  }
  for_lanes(end - column, [&](int64_t c, int lanes) {
    vf acc = zero();
    for (int64_t i = 0; i < n; i++) acc += load_part(src + order[i] * width + column + c, lanes);
    store_part(out + column + c, acc * set1(factor), lanes);
  });
}

}  // namespace
}  // namespace fovea::cpu
