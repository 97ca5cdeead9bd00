// Divergence and reconvergence, as nvcc compiles it: nested branches, loops of different length, early exits, switches, calls.
#include <cstdint>

extern "C" __global__ void nested(const int* x, int* out) {
  const int i = threadIdx.x;
  int v = x[i], r = 0;
  if (v & 1) {
    if (v & 2) {
      for (int k = 0; k < (v >> 4 & 7); ++k) r += k * v;
    } else {
      r = -v;
      if (v & 4) r += 100;
    }
    r ^= 0x55;
  } else if (v & 8) {
    while (v > 3) {
      v = (v & 1) ? 3 * v / 4 : v / 2;
      ++r;
    }
  } else {
    r = 7;
  }
  // All lanes are together again here, or the shuffle fails.
  r += __shfl_xor_sync(~0u, r, 5);
  out[i] = r;
}

extern "C" __global__ void loops(const int* x, int* out) {
  int r = 0;
  const int n = x[threadIdx.x] & 31;
  for (int a = 0; a < n; ++a) {
    if (a == 11) continue;
    for (int b = a; b < 8; ++b) {
      if ((a ^ b) == 6) break;
      r += a * b + 1;
    }
    if (r > 300) break;
  }
  out[threadIdx.x] = r + static_cast<int>(__ballot_sync(~0u, n > 15));
}

extern "C" __global__ void early_exit(const int* x, int* out) {
  const int i = threadIdx.x;
  if (x[i] & 1) return;
  out[i] = x[i] * 2;
  for (int k = 0; k < 10; ++k) {
    if ((x[i] >> 1 & 15) == k) return;
    out[i] += k;
  }
  out[i] = -1;
}

extern "C" __global__ void choose(const int* x, int* out) {
  const int v = x[threadIdx.x];
  int r;
  switch (v & 15) {
    case 0: r = v + 1; break;
    case 1: r = v * 3; break;
    case 2: r = v ^ 0xff; break;
    case 3: r = -v; break;
    case 4: r = v / 3; break;
    case 5: r = v % 7; break;
    case 6: r = v << 2; break;
    case 7: r = v >> 1; break;
    case 8: r = 42;  // falls through
    case 9: r = v - 9; break;
    default: r = 0;
  }
  out[threadIdx.x] = r;
}

struct Pair {
  int a;
  float b;
};

__device__ __noinline__ Pair step(Pair p, int n) {
  if (n & 1) return {p.a + n, p.b * 0.5f};
  int local[4];
  for (int k = 0; k < 4; ++k) local[k] = p.a * k;
  return {local[n & 3], p.b + 1.f};
}

extern "C" __global__ void calls(const int* x, int* out, Pair start) {
  Pair p = start;
  for (int k = 0; k < (x[threadIdx.x] & 7); ++k) p = step(p, k + x[threadIdx.x]);
  out[threadIdx.x] = p.a + static_cast<int>(p.b * 16.f);
}

// A sum over the block: shared memory, barriers, warp reduction, one atomic a block.
extern "C" __global__ void total(const int* x, int n, int* sum, unsigned* blocks_done, int* last) {
  __shared__ int part[32];
  __shared__ bool is_last;
  int v = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  v = __reduce_add_sync(~0u, v);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0;
    for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(~0u, v, d);
    if (threadIdx.x == 0) {
      atomicAdd(sum, v);
      __threadfence();
      is_last = atomicInc(blocks_done, gridDim.x - 1) == gridDim.x - 1;
    }
  }
  __syncthreads();
  if (is_last && threadIdx.x == 0) *last = *reinterpret_cast<volatile int*>(sum);
}

// Two halves of a block hand data to each other through named barriers.
extern "C" __global__ void pipeline(const int* x, int* out, int rounds) {
  __shared__ int slot[2][64];
  const int half = threadIdx.x / 64, i = threadIdx.x % 64;
  if (half == 0) {
    for (int k = 0; k < rounds; ++k) {
      if (k >= 2) asm volatile("bar.sync %0, 128;" ::"r"(3 + (k & 1)) : "memory");
      slot[k & 1][i] = x[k * 64 + i];
      asm volatile("bar.arrive %0, 128;" ::"r"(1 + (k & 1)) : "memory");
    }
  } else {
    int sum = 0;
    for (int k = 0; k < rounds; ++k) {
      asm volatile("bar.sync %0, 128;" ::"r"(1 + (k & 1)) : "memory");
      sum += slot[k & 1][63 - i];
      if (k + 2 < rounds) asm volatile("bar.arrive %0, 128;" ::"r"(3 + (k & 1)) : "memory");
    }
    out[i] = sum;
  }
}
