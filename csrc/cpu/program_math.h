// Elementary functions on one register, as mask and score programs define them (core/mask_program.h), and the lane operations they need.
//
// Rounding functions, division and conversions are exact. log, tanh, sin, cos are polynomial with errors of 1-3 ulp; `each` runs a libm
// function lane by lane where the last bit matters (masks) or no polynomial is kept (pow, fmod).
#pragma once

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {
namespace vm {

typedef double vd __attribute__((vector_size(kVectorBytes * 2)));

FOVEA_INLINE vi bits_of(vf x) { return reinterpret_cast<vi>(x); }
FOVEA_INLINE vf float_of(vi x) { return reinterpret_cast<vf>(x); }
FOVEA_INLINE vf absolute(vf x) { return float_of(bits_of(x) & 0x7fffffff); }
FOVEA_INLINE vf with_sign_of(vf magnitude, vf sign) { return float_of(bits_of(absolute(magnitude)) | (bits_of(sign) & INT32_MIN)); }

template <class F>
FOVEA_INLINE vf each(vf x, F f) {
  float lanes[kLanes];
  store(lanes, x);
  for (int i = 0; i < kLanes; i++) lanes[i] = static_cast<float>(f(static_cast<double>(lanes[i])));
  return load(lanes);
}

template <class F>
FOVEA_INLINE vf each(vf x, vf y, F f) {
  float a[kLanes], b[kLanes];
  store(a, x);
  store(b, y);
  for (int i = 0; i < kLanes; i++) a[i] = static_cast<float>(f(static_cast<double>(a[i]), static_cast<double>(b[i])));
  return load(a);
}

// One bit per lane of a mask of all-ones and zero lanes.
FOVEA_INLINE uint32_t lane_bits(vi mask) {
#if defined(__AVX512DQ__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask));
#elif defined(__AVX__)
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(mask)));
#else
  uint32_t bits = 0;
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) bits |= static_cast<uint32_t>(mask[i] & 1) << i;
  return bits;
#endif
}

constexpr uint32_t kAllLanes = (1u << kLanes) - 1;

FOVEA_INLINE vi reversed(vi x) {
  vi r{};
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) r[i] = x[kLanes - 1 - i];
  return r;
}

FOVEA_INLINE vf truncated(vf x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, 11);
#elif defined(__AVX__)
  return _mm256_round_ps(x, 11);
#else
  vi small = absolute(x) < set1(8388608.f);  // beyond 2^23 every float is whole
  return select(small, with_sign_of(to_float(to_int(select(small, x, zero()))), x), x);
#endif
}

FOVEA_INLINE vf floored(vf x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, 9);
#elif defined(__AVX__)
  return _mm256_round_ps(x, 9);
#else
  vf t = truncated(x);
  return select(t > x, t - set1(1.f), t);
#endif
}

FOVEA_INLINE vf ceiled(vf x) { return float_of(bits_of(floored(float_of(bits_of(x) ^ INT32_MIN))) ^ INT32_MIN); }

// Halves go up, as Math.round.
FOVEA_INLINE vf rounded(vf x) {
  vf low = floored(x);
  return select(x - low >= set1(0.5f), low + set1(1.f), low);
}

FOVEA_INLINE vf square_root(vf x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX__)
  return _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(x);
#else
  return vsqrtq_f32(x);
#endif
}

// NaN where either is NaN, and -0 below +0.
FOVEA_INLINE vf minimum(vf a, vf b) {
  vf r = select(a == b, float_of(bits_of(a) | bits_of(b)), min(a, b));
  return select((a != a) | (b != b), a + b, r);
}
FOVEA_INLINE vf maximum(vf a, vf b) {
  vf r = select(a == b, float_of(bits_of(a) & bits_of(b)), max(a, b));
  return select((a != a) | (b != b), a + b, r);
}

FOVEA_INLINE vf sign(vf x) {
  vf one = select(x > zero(), set1(1.f), select(x < zero(), set1(-1.f), zero()));
  return select(x != x, x, one);
}

// Quotients of i32 are exact in double: their distance from the next integer is at least 2^-31 of themselves.
FOVEA_INLINE vi divide(vi a, vi b) {
  vi divisor = select((b == 0) | (b == -1), set1(1), b);
  vd quotient = __builtin_convertvector(a, vd) / __builtin_convertvector(divisor, vd);
  vi q = __builtin_convertvector(quotient, vi);
  return select(b == -1, reinterpret_cast<vi>(-reinterpret_cast<vu>(a)), q) & (b != 0);
}

FOVEA_INLINE vi multiply(vi a, vi b) { return reinterpret_cast<vi>(reinterpret_cast<vu>(a) * reinterpret_cast<vu>(b)); }
FOVEA_INLINE vi add(vi a, vi b) { return reinterpret_cast<vi>(reinterpret_cast<vu>(a) + reinterpret_cast<vu>(b)); }
FOVEA_INLINE vi subtract(vi a, vi b) { return reinterpret_cast<vi>(reinterpret_cast<vu>(a) - reinterpret_cast<vu>(b)); }
FOVEA_INLINE vi remainder(vi a, vi b) { return subtract(a, multiply(divide(a, b), b)) & (b != 0); }

FOVEA_INLINE vi saturated_int(vf x) {
  vi high = x >= set1(2147483648.f), low = x <= set1(-2147483648.f);
  vi inside = to_int(select(high | low | (x != x), zero(), x));
  return select(high, set1(INT32_MAX), select(low, set1(INT32_MIN), inside));
}

FOVEA_INLINE vf log(vf x) {
  vi tiny = (x < set1(1.17549435e-38f)) & (x > zero());
  vf y = select(tiny, x * set1(8388608.f), x);
  // x = m 2^e with m in [sqrt(1/2), sqrt(2))
  vi e = ((bits_of(y) - 0x3f3504f3) >> 23);
  vf m = float_of(bits_of(y) - (e << 23)) - set1(1.f);
  vf exponent = to_float(e) - select(tiny, set1(23.f), zero());
  vf z = m * m, p = set1(7.0376836292e-2f);
  constexpr float coefficient[] = {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                                   -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
  FOVEA_UNROLL
  for (float c : coefficient) p = fma(p, m, set1(c));
  vf r = fma(exponent, set1(-2.12194440e-4f), m * z * p);
  r = fma(set1(-0.5f), z, r) + m;
  r = fma(exponent, set1(0.693359375f), r);
  const vf infinity = set1(__builtin_inff());
  r = select(x == infinity, infinity, r);
  r = select(x == zero(), -infinity, r);
  return select((x < zero()) | (x != x), set1(__builtin_nanf("")), r);
}

FOVEA_INLINE vf tanh(vf x) {
  vf a = absolute(x), z = x * x;
  vf p = fma(set1(-5.70498872745e-3f), z, set1(2.06390887954e-2f));
  p = fma(p, z, set1(-5.37397155531e-2f));
  p = fma(p, z, set1(1.33314422036e-1f));
  p = fma(p, z, set1(-3.33332819422e-1f));
  vf near = fma(p * z, x, x);
  vf far = set1(1.f) - set1(2.f) / (exp(min(a, set1(20.f)) * set1(2.f)) + set1(1.f));
  vf r = select(a < set1(0.625f), near, with_sign_of(far, x));
  return select(x != x, x, r);
}

// sin(x + quarter * pi / 2) for |x| < 8192; beyond, lane by lane.
template <int kQuarter>
FOVEA_INLINE vf sine(vf x) {
  if (lane_bits(absolute(x) < set1(8192.f)) != kAllLanes) [[unlikely]]
    return each(x, [](double v) { return kQuarter ? __builtin_cos(v) : __builtin_sin(v); });
  vf n = round_nearest(x * set1(0.636619772f));
  vi quadrant = to_int(n) + kQuarter;
  vf r = fma(n, set1(-1.5703125f), x);
  r = fma(n, set1(-4.837512969970703125e-4f), r);
  r = fma(n, set1(-7.54978995489188216e-8f), r);
  vf z = r * r;
  vf s = fma(set1(-1.9515295891e-4f), z, set1(8.3321608736e-3f));
  s = fma(s, z, set1(-1.6666654611e-1f));
  s = fma(s * z, r, r);
  vf c = fma(set1(2.443315711809948e-5f), z, set1(-1.388731625493765e-3f));
  c = fma(c, z, set1(4.166664568298827e-2f));
  c = fma(c * z, z, fma(z, set1(-0.5f), set1(1.f)));
  vf value = select((quadrant & 1) != 0, c, s);
  return float_of(bits_of(value) ^ ((quadrant & 2) << 30));
}

// C's pow but for the cases where JavaScript says NaN.
FOVEA_INLINE double power(double x, double y) {
  if (y != y || ((x == 1 || x == -1) && __builtin_isinf(y))) return __builtin_nan("");
  return __builtin_pow(x, y);
}

}  // namespace vm
}  // namespace
}  // namespace fovea::cpu
