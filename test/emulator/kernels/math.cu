// CUDA's math library, as nvcc inlines it: thousands of instructions with known results.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

extern "C" __global__ void math_f32(const float* x, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float v = x[i], p = fabsf(v) + 0.01f;
  const float results[] = {expf(v),        logf(p),   powf(p, 1.3f),   sinf(v),        cosf(v * 50.f), tanhf(v),       erff(v),
                           rsqrtf(p),      cbrtf(v),  atan2f(v, 0.7f), fmodf(v, 0.3f), exp2f(v),       log1pf(p),      expm1f(v),
                           asinf(v / 9.f), floorf(v), rintf(v * 3),    truncf(v),      sinhf(v),       hypotf(v, 2.f), normcdff(v),
                           log2f(p),       1.f / p,   sqrtf(p),        ldexpf(v, 5),   sinf(v * 1e6f), lgammaf(p)};
  for (int k = 0; k < static_cast<int>(sizeof(results) / sizeof(float)); ++k) out[k * n + i] = results[k];
}

extern "C" __global__ void math_f64(const double* x, double* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const double v = x[i], p = fabs(v) + 0.01;
  out[i] = exp(v);
  out[n + i] = log(p);
  out[2 * n + i] = sin(v);
  out[3 * n + i] = pow(p, 2.5);
  out[4 * n + i] = v / (p + 1);
  out[5 * n + i] = sqrt(p);
  out[6 * n + i] = erf(v);
  out[7 * n + i] = tanh(v);
}

// 128-bit products, divisions by variables and constants, and a Philox-like mix.
extern "C" __global__ void math_int(const uint64_t* x, uint64_t* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const uint64_t a = x[i], b = x[(i + 1) % n] | 1;
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  out[i] = static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product + a);
  out[n + i] = a / b + a % b;
  out[2 * n + i] = static_cast<uint64_t>(static_cast<int64_t>(a) / static_cast<int64_t>(b)) + a / 1000003;
  uint32_t c0 = static_cast<uint32_t>(a), c1 = static_cast<uint32_t>(a >> 32), key = static_cast<uint32_t>(b);
  for (int r = 0; r < 10; ++r) {
    const uint64_t p = static_cast<uint64_t>(c0) * 0xd2511f53u;
    c0 = static_cast<uint32_t>(p >> 32) ^ key ^ c1;
    c1 = static_cast<uint32_t>(p);
    key += 0x9e3779b9u;
  }
  out[3 * n + i] = static_cast<uint64_t>(c1) << 32 | c0;
}

extern "C" __global__ void math_half(const float* x, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const __half h = __float2half(x[i]);
  const __nv_bfloat162 b = __floats2bfloat162_rn(x[i], -x[i]);
  out[i] = __half2float(hexp(h));
  out[n + i] = __half2float(__hfma(h, h, h));
  out[2 * n + i] = __low2float(__hmax2(b, __hneg2(b)));
  out[3 * n + i] = __high2float(__hadd2(b, b));
  out[4 * n + i] = __half2float(h / __float2half(3.f));
  out[5 * n + i] = __hlt(h, __float2half(0.25f)) ? 1.f : 0.f;
}
