// What triangle kernels take, on every device.
#pragma once

#include <cstdint>

namespace fovea {

// x and out contiguous [matrices, rows, columns]. Kept: column - row <= diagonal (lower) or >= diagonal (upper); the rest is 0.
struct TriangleParams {
  const void* x;
  void* out;
  int element_bytes;
  int64_t matrices, rows, columns, diagonal;
  bool upper;
};

}  // namespace fovea
