// Element types of registers and how a value sits in its lane. Used by the files compiled once per instruction set, hence always_inline.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "program.h"

#define FOVEA_INLINE [[gnu::always_inline]] inline

namespace fovea::emulator {

using u8 = uint8_t;
using s8 = int8_t;
using u16 = uint16_t;
using s16 = int16_t;
using u32 = uint32_t;
using s32 = int32_t;
using u64 = uint64_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;
struct f16 {
  u16 bits;
};
struct bf16 {
  u16 bits;
};
struct f16x2 {
  f16 lo, hi;
};
struct bf16x2 {
  bf16 lo, hi;
};

// How an operand is stored and how a literal for it is encoded.
enum class Kind : uint8_t { Pred, B32, B64, F32, F64 };

template <class T>
using storage_t = std::conditional_t<sizeof(T) == 8, u64, u32>;

template <class T>
FOVEA_INLINE T unpack(storage_t<T> v) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(v);
  } else if constexpr (sizeof(T) == 2) {
    return T{static_cast<u16>(v)};
  } else {
    return std::bit_cast<T>(v);
  }
}

template <class T>
FOVEA_INLINE storage_t<T> pack(T v) {
  if constexpr (std::is_integral_v<T> && std::is_signed_v<T> && sizeof(T) < 4) {
    return static_cast<u32>(static_cast<s32>(v));
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<storage_t<T>>(v);
  } else if constexpr (sizeof(T) == 2) {
    return v.bits;
  } else {
    return std::bit_cast<storage_t<T>>(v);
  }
}

template <class T>
constexpr Kind kind_of() {
  if (std::is_same_v<T, bool>) return Kind::Pred;
  if (std::is_same_v<T, f32>) return Kind::F32;
  if (std::is_same_v<T, f64>) return Kind::F64;
  return sizeof(T) == 8 ? Kind::B64 : Kind::B32;
}

template <class T>
constexpr const char* name_of_type() {
  if (std::is_same_v<T, u8>) return "u8";
  if (std::is_same_v<T, s8>) return "s8";
  if (std::is_same_v<T, u16>) return "u16";
  if (std::is_same_v<T, s16>) return "s16";
  if (std::is_same_v<T, u32>) return "u32";
  if (std::is_same_v<T, s32>) return "s32";
  if (std::is_same_v<T, u64>) return "u64";
  if (std::is_same_v<T, s64>) return "s64";
  if (std::is_same_v<T, f32>) return "f32";
  if (std::is_same_v<T, f64>) return "f64";
  if (std::is_same_v<T, f16>) return "f16";
  if (std::is_same_v<T, bf16>) return "bf16";
  if (std::is_same_v<T, f16x2>) return "f16x2";
  return "bf16x2";
}

}  // namespace fovea::emulator
