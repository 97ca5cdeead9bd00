// Rows by index: gathering them (embedding, indexSelect) and adding them up by destination (their gradients).
#pragma once

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"
#include "cpu/indices.h"

namespace fovea::cpu {

// out[o, i, :] = src[o, ids[i], :] for contiguous src [outer, size, row_bytes] and out [outer, count, row_bytes].
struct GatherRowsParams {
  const void* src;
  void* out;
  int64_t outer, size, count, row_bytes;
  Indices ids;
};

// out[o, r, :] = sum of src[o, i, :] over the i with ids[i] == r, in rising i, accumulated in f32. out [outer, size, width], every row is
// written. Bad ids are skipped.
struct AddRowsParams {
  const void* src;
  void* out;
  DType dtype;
  int64_t outer, size, count, width;
  Indices ids;
  int64_t* workspace;  // size + 1 + count
};

// Returns the first position of ids that is out of range (its row of out is left as it was), or -1.
template <Isa>
int64_t gather_rows(const GatherRowsParams&, ThreadPool&);
template <Isa>
int64_t add_rows(const AddRowsParams&, ThreadPool&);

}  // namespace fovea::cpu
