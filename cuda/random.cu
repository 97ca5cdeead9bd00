// Random tensors and dropout over the Philox streams of core/philox.h: a thread makes one block of four words, elements 4 i to 4 i + 3.
#include "core/philox.h"
#include "core/random_params.h"
#include "elements.cuh"

namespace fovea::cuda {

namespace {

__device__ __forceinline__ float unit(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

__device__ __forceinline__ void box_muller(uint32_t u, uint32_t v, float (&z)[2]) {
  // Products that must not be contracted into what follows: the CPU rounds them.
  const float r = sqrtf(__fmul_rn(-2.f, logf(unit(u) + 0x1p-24f))), turn = __fmul_rn(unit(v), 6.28318530717958647692f);
  z[0] = __fmul_rn(r, cosf(turn));
  z[1] = __fmul_rn(r, sinf(turn));
}

__device__ __forceinline__ void store_uniform(const RandomParams& p, int64_t i, uint32_t word) {
  const bool plain = p.scale == 1.f && p.shift == 0.f;
  if (!plain) {
    const float x = __fadd_rn(__fmul_rn(unit(word), p.scale), p.shift);
    if (p.dtype == DType::F64) static_cast<double*>(p.out)[i] = static_cast<double>(x);
    else store_as<float>(p.dtype, p.out, i, x);
    return;
  }
  if (p.dtype == DType::F64) static_cast<double*>(p.out)[i] = word * 0x1p-32;
  else if (p.dtype == DType::BF16) store_as<float>(p.dtype, p.out, i, static_cast<float>(word >> 24) * 0x1p-8f);
  else if (p.dtype == DType::F16) store_as<float>(p.dtype, p.out, i, static_cast<float>(word >> 21) * 0x1p-11f);
  else store_as<float>(p.dtype, p.out, i, unit(word));
}

__device__ __forceinline__ void store_number(const RandomParams& p, int64_t i, float x) {
  if (p.dtype == DType::F64) static_cast<double*>(p.out)[i] = static_cast<double>(x);
  else store_as<float>(p.dtype, p.out, i, x);
}

__device__ __forceinline__ bool is_float(DType dtype) {
  return dtype == DType::F32 || dtype == DType::BF16 || dtype == DType::F16 || dtype == DType::F64;
}

}  // namespace

extern "C" __global__ void random_fill(const __grid_constant__ RandomParams p) {
  const int64_t block = global_thread(), first = block * 4;
  if (first >= p.count) return;
  const philox::Block words = philox::block_of(static_cast<uint64_t>(block), p.seed, p.offset);
  float normal[4];
  if (p.distribution == Distribution::Normal) {
    float pair[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      box_muller(words.word[half * 2], words.word[half * 2 + 1], pair);
      normal[half * 2] = pair[0];
      normal[half * 2 + 1] = pair[1];
    }
  }
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const int64_t i = first + k;
    if (i >= p.count) return;
    const uint32_t word = words.word[k];
    switch (p.distribution) {
      case Distribution::Uniform: store_uniform(p, i, word); break;
      case Distribution::Normal: store_number(p, i, __fadd_rn(__fmul_rn(normal[k], p.scale), p.shift)); break;
      case Distribution::Integer: store_as<int64_t>(p.dtype, p.out, i, p.low + static_cast<int64_t>((word * p.range) >> 32)); break;
      case Distribution::Bernoulli: {
        const bool kept = word < p.threshold;
        if (is_float(p.dtype)) store_number(p, i, kept ? 1.f : 0.f);
        else store_as<int64_t>(p.dtype, p.out, i, kept);
      }
    }
  }
}

extern "C" __global__ void dropout(const __grid_constant__ DropoutParams p) {
  const int64_t block = global_thread(), first = block * 4;
  if (first >= p.count) return;
  const philox::Block words = philox::block_of(static_cast<uint64_t>(block), p.seed, p.offset);
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const int64_t i = first + k;
    if (i < p.count) store_as<float>(p.dtype, p.out, i, words.word[k] < p.threshold ? load_as<float>(p.dtype, p.x, i) * p.scale : 0.f);
  }
}

}  // namespace fovea::cuda
