// The lower or upper triangle of matrices.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// x and out contiguous [matrices, rows, columns]. Kept: column - row <= diagonal (lower) or >= diagonal (upper); the rest is 0.
struct TriangleParams {
  const void* x;
  void* out;
  int element_bytes;
  int64_t matrices, rows, columns, diagonal;
  bool upper;
};

template <Isa>
void triangle(const TriangleParams&, ThreadPool&);

}  // namespace fovea::cpu
