// Element types, their sizes and names. bf16 and f16 are storage types: arithmetic happens in f32.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fovea {

enum class DType : uint8_t { F32, BF16, F16, F64, I32, I64, U8, Bool };

constexpr int kDTypeCount = 8;

constexpr size_t size_of(DType d) {
  constexpr size_t sizes[] = {4, 2, 2, 8, 4, 8, 1, 1};
  return sizes[static_cast<int>(d)];
}

constexpr const char* name_of(DType d) {
  constexpr const char* names[] = {"f32", "bf16", "f16", "f64", "i32", "i64", "u8", "bool"};
  return names[static_cast<int>(d)];
}

constexpr bool is_floating(DType d) { return d == DType::F32 || d == DType::BF16 || d == DType::F16 || d == DType::F64; }

// Raw storage of the 16-bit floats; conversion lives in cpu/simd.h and cpu/convert.h.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

}  // namespace fovea
