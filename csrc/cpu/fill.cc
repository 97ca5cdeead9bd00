// Elements of every size are written as whole 8-byte words of the repeated pattern; the last word may be partial.
#include "cpu/fill.h"

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileBytes = 1 << 18;
constexpr int64_t kTileElements = 1 << 15;

uint64_t repeated(uint64_t pattern, int element_bytes) {
  if (element_bytes == 1) pattern = (pattern & 0xff) * 0x0101010101010101u;
  else if (element_bytes == 2) pattern = (pattern & 0xffff) * 0x0001000100010001u;
  else if (element_bytes == 4) pattern = (pattern & 0xffffffffu) * 0x0000000100000001u;
  return pattern;
}

template <class T>
void sequence_tile(const SequenceParams& p, int64_t begin, int64_t end) {
  T* out = static_cast<T*>(p.out);
  for (int64_t i = begin; i < end; i++) out[i] = static_cast<T>(p.start + static_cast<double>(i) * p.step);
}

}  // namespace

template <>
void fill<kIsa>(const FillParams& p, ThreadPool& pool) {
  const int64_t bytes = p.count * p.element_bytes;
  const uint64_t word = repeated(p.pattern, p.element_bytes);
  pool.run((bytes + kTileBytes - 1) / kTileBytes, [&](int64_t tile, int) {
    char* at = static_cast<char*>(p.out) + tile * kTileBytes;
    int64_t n = bytes - tile * kTileBytes < kTileBytes ? bytes - tile * kTileBytes : kTileBytes;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) __builtin_memcpy(at + i, &word, 8);
    __builtin_memcpy(at + i, &word, n - i);
  });
}

template <>
void sequence<kIsa>(const SequenceParams& p, ThreadPool& pool) {
  pool.run((p.count + kTileElements - 1) / kTileElements, [&](int64_t tile, int) {
    int64_t begin = tile * kTileElements, end = begin + kTileElements < p.count ? begin + kTileElements : p.count;
    switch (p.dtype) {
      case DType::F32: return sequence_tile<float>(p, begin, end);
      case DType::F64: return sequence_tile<double>(p, begin, end);
      case DType::I32: return sequence_tile<int32_t>(p, begin, end);
      default: return sequence_tile<int64_t>(p, begin, end);
    }
  });
}

}  // namespace fovea::cpu
