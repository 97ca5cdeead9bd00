// Index tensors inside kernels: reading one whatever its dtype, and noting the first that is out of range.
//
// Kernels test every index before they use it and skip bad ones, so nothing outside is touched; the op then throws for the first.
#pragma once

#include "core/indices.h"

namespace fovea::cpu {

using fovea::Indices;

namespace {

inline int64_t index_at(const Indices& ids, int64_t i) {
  if (ids.dtype == DType::I64) return static_cast<const int64_t*>(ids.data)[i];
  if (ids.dtype == DType::I32) return static_cast<const int32_t*>(ids.data)[i];
  return static_cast<const uint8_t*>(ids.data)[i];
}

inline bool in_range(int64_t index, int64_t size) { return static_cast<uint64_t>(index) < static_cast<uint64_t>(size); }

// The lowest position of a bad index, shared by the threads of one kernel.
class FirstBad {
 public:
  void note(int64_t position) {
    int64_t seen = __atomic_load_n(&position_, __ATOMIC_RELAXED);
    while (position < seen && !__atomic_compare_exchange_n(&position_, &seen, position, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
  }
  // -1 when every index was good.
  int64_t position() const { return position_ == INT64_MAX ? -1 : position_; }

 private:
  int64_t position_ = INT64_MAX;
};

}  // namespace
}  // namespace fovea::cpu
