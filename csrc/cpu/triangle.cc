// Each row is a copied range and a cleared one.
#include "cpu/triangle.h"

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileBytes = 1 << 16;

int64_t clamp(int64_t x, int64_t high) { return x < 0 ? 0 : x > high ? high : x; }

}  // namespace

template <>
void triangle<kIsa>(const TriangleParams& p, ThreadPool& pool) {
  const int64_t rows = p.matrices * p.rows, bytes = p.columns * p.element_bytes;
  if (rows == 0 || bytes == 0) return;
  const int64_t step = bytes >= kTileBytes ? 1 : kTileBytes / bytes;
  pool.run((rows + step - 1) / step, [&](int64_t tile, int) {
    for (int64_t row = tile * step; row < rows && row < (tile + 1) * step; row++) {
      const char* x = static_cast<const char*>(p.x) + row * bytes;
      char* out = static_cast<char*>(p.out) + row * bytes;
      // Where the kept columns begin (upper) or end (lower).
      int64_t edge = clamp(row % p.rows + p.diagonal + (p.upper ? 0 : 1), p.columns) * p.element_bytes;
      if (p.upper) {
        __builtin_memset(out, 0, edge);
        __builtin_memcpy(out + edge, x + edge, bytes - edge);
      } else {
        __builtin_memcpy(out, x, edge);
        __builtin_memset(out + edge, 0, bytes - edge);
      }
    }
  });
}

}  // namespace fovea::cpu
