// Conversions between float formats and directed rounding, written so that loops over lanes vectorise. Included only by ops_*.cc.
#pragma once

#include <cmath>

#include "lanes.h"

namespace fovea::emulator {
namespace {

enum class Round { Nearest, Zero, Down, Up };

FOVEA_INLINE f32 flush(f32 v) {
  const u32 b = std::bit_cast<u32>(v);
  return std::bit_cast<f32>((b & 0x7f800000u) == 0 ? b & 0x80000000u : b);
}

FOVEA_INLINE f32 saturate(f32 v) { return v > 0.f ? (v < 1.f ? v : 1.f) : 0.f; }  // NaN gives +0

FOVEA_INLINE f32 to_f32(f16 h) {
  const u32 sign = u32{h.bits & 0x8000u} << 16, rest = h.bits & 0x7fffu;
  // Exponents move by a multiplication, which also makes subnormals right; infinities and NaNs are set apart.
  const f32 scaled = std::bit_cast<f32>(rest << 13) * 0x1p112f;
  const u32 bits = rest >= 0x7c00u ? (rest << 13) | 0x7f800000u : std::bit_cast<u32>(scaled);
  return std::bit_cast<f32>(bits | sign);
}
FOVEA_INLINE f32 to_f32(bf16 h) { return std::bit_cast<f32>(u32{h.bits} << 16); }

// Rounding of a magnitude's bits to a multiple of 2^shift; carries run into the exponent, as they should.
template <Round kMode>
FOVEA_INLINE u32 round_bits(u32 magnitude, u32 shift, bool negative) {
  const u32 low = (1u << shift) - 1;
  if (kMode == Round::Nearest) return magnitude + (low >> 1) + (magnitude >> shift & 1);
  if ((kMode == Round::Up && !negative) || (kMode == Round::Down && negative)) return magnitude + low;
  return magnitude;
}

template <Round kMode = Round::Nearest>
FOVEA_INLINE bf16 to_bf16(f32 v) {
  const u32 b = std::bit_cast<u32>(v), magnitude = b & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {0x7fff};
  const bool finite = magnitude < 0x7f800000u;
  u32 r = finite ? round_bits<kMode>(magnitude, 16, b >> 31) : magnitude;
  return {static_cast<u16>((r | (b & 0x80000000u)) >> 16)};
}

template <Round kMode = Round::Nearest>
FOVEA_INLINE f16 to_f16(f32 v) {
  const u32 b = std::bit_cast<u32>(v), sign = b >> 16 & 0x8000u, magnitude = b & 0x7fffffffu;
  const bool negative = b >> 31;
  u32 normal = (round_bits<kMode>(magnitude, 13, negative) - 0x38000000u) >> 13;
  const bool outward = kMode == Round::Nearest || (kMode == Round::Up && !negative) || (kMode == Round::Down && negative);
  if (normal >= 0x7c00u || magnitude >= 0x47800000u) normal = outward || magnitude >= 0x7f800000u ? 0x7c00u : 0x7bffu;
  // Below 2^-14 the value counts units of 2^-24.
  const f32 units = std::bit_cast<f32>(magnitude < 0x38800000u ? magnitude : 0u) * 0x1p24f;
  u32 small = static_cast<u32>(static_cast<s32>(units));
  const f32 rest = units - static_cast<f32>(static_cast<s32>(small));
  if (kMode == Round::Nearest) {
    small += rest > 0.5f || (rest == 0.5f && (small & 1));
  } else if (outward) {
    small += rest > 0.f;
  }
  u32 r = magnitude < 0x38800000u ? small : normal;
  r = magnitude > 0x7f800000u ? 0x7fffu : r;
  return {static_cast<u16>(magnitude > 0x7f800000u ? r : r | sign)};
}

// a + b or a*b + c in double with the lost part kept as a sticky last bit ("round to odd"), so that a second rounding to a shorter
// format gives what one rounding of the exact value would.
FOVEA_INLINE f64 add_odd(f64 a, f64 b) {
  const f64 sum = a + b, bb = sum - a, lost = (a - (sum - bb)) + (b - bb);
  const u64 bits = std::bit_cast<u64>(sum);
  if (!(lost != 0.0) || (bits & 1) || !(sum - sum == 0.0)) return sum;
  const bool away = (lost > 0) == (sum > 0);
  return std::bit_cast<f64>(away ? bits + 1 : bits - 1);
}
FOVEA_INLINE f64 fma_odd(f32 a, f32 b, f32 c) { return add_odd(static_cast<f64>(a) * static_cast<f64>(b), static_cast<f64>(c)); }

FOVEA_INLINE f32 step(f32 v, bool up) {  // next float in a direction, v finite or infinite
  const u32 b = std::bit_cast<u32>(v);
  if ((b & 0x7fffffffu) == 0) return std::bit_cast<f32>(up ? 1u : 0x80000001u);
  return std::bit_cast<f32>(b + ((b >> 31 != 0) == up ? ~0u : 1u));
}

template <Round kMode>
FOVEA_INLINE f32 round_to_f32(f64 v) {
  const f32 r = static_cast<f32>(v);
  const f64 d = static_cast<f64>(r) - v;
  const bool finite = v - v == 0.0;
  if (kMode == Round::Nearest || !finite) return r;
  const bool down = kMode == Round::Down || (kMode == Round::Zero && v > 0), up = kMode == Round::Up || (kMode == Round::Zero && v < 0);
  if (down && d > 0) return step(r, false);
  if (up && d < 0) return step(r, true);
  return r;
}

// 2^x, within 2 units in the last place.
FOVEA_INLINE f32 exp2_approx(f32 x) {
  const f32 clamped = x < -151.f ? -151.f : (x > 129.f ? 129.f : x);
  const f32 whole = std::bit_cast<f32>(0x4b400000u) + clamped - std::bit_cast<f32>(0x4b400000u);
  const f32 t = clamped - whole;
  f32 p = 1.5403530393381608e-4f;
  p = p * t + 1.3333558146428443e-3f;
  p = p * t + 9.6181291076284772e-3f;
  p = p * t + 5.5504108664821580e-2f;
  p = p * t + 2.4022650695910072e-1f;
  p = p * t + 6.9314718055994531e-1f;
  p = p * t + 1.0f;
  // Two factors, because the result may be subnormal or close to the largest float.
  const s32 n = static_cast<s32>(whole), half = n / 2;
  const f32 scale = std::bit_cast<f32>((half + 127) << 23), rest = std::bit_cast<f32>((n - half + 127) << 23);
  const f32 r = p * scale * rest;
  return x != x ? x : r;
}

}  // namespace
}  // namespace fovea::emulator
