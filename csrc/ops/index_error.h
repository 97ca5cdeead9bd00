// Index tensors of ops: what they may be, and the error for one out of range.
#pragma once

#include "core/tensor.h"
#include "cpu/indices.h"
#include "cuda/index_status.h"

namespace fovea {

inline void check_index_dtype(const char* op, const Tensor& ids) {
  check(ids.dtype == DType::I32 || ids.dtype == DType::I64 || ids.dtype == DType::U8, "ERR_DTYPE", op, ": indices of dtype ",
        name_of(ids.dtype), "; expected i32, i64 or u8");
}

inline cpu::Indices indices_of(const Tensor& ids) { return {ids.data(), ids.dtype}; }

// Throws ERR_INDEX for `index` at `position` (row-major in `shape`).
[[noreturn]] inline void fail_index(const char* op, int64_t index, int64_t position, const Dims& shape, int64_t size) {
  Dims at = shape;
  int64_t rest = position;
  for (int i = shape.rank - 1; i >= 0; i--) {
    at[i] = rest % shape[i];
    rest /= shape[i];
  }
  fail("ERR_INDEX", op, ": index ", index, " at position ", text_of(at), " is out of range; expected 0 to ", size - 1);
}

// The same when `position` is not -1.
inline void check_indices(const char* op, int64_t position, const cpu::Indices& ids, const Dims& shape, int64_t size) {
  if (position >= 0) fail_index(op, cpu::index_at(ids, position), position, shape, size);
}

inline void check_indices(const char* op, const cuda::IndexStatus& status, const Indices& ids, const Dims& shape, int64_t size) {
  const int64_t position = status.position();
  if (position >= 0) fail_index(op, status.index_at(ids, position), position, shape, size);
}

}  // namespace fovea
