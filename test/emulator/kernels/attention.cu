// A bf16 flash attention forward in the style of real sm_80 kernels: mma.sync, ldmatrix, two cp.async stages in swizzled shared memory,
// online softmax with shuffles. One block of 4 warps per 64 queries, head dim 64, 64 keys per step. The emulator's stress test.
#include <cuda_bf16.h>

#include <cstdint>

namespace {

constexpr int kDim = 64, kRows = 64, kKeys = 64;

__device__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
// A row has 8 chunks of 16 bytes; chunk c of row r lies at c ^ (r & 7).
__device__ uint32_t chunk_address(uint32_t tile, int row, int chunk) {
  return tile + static_cast<uint32_t>(row * 128 + ((chunk ^ (row & 7)) << 4));
}

__device__ void copy_chunk(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
__device__ void commit() { asm volatile("cp.async.commit_group;"); }
template <int n>
__device__ void wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}
__device__ void load_x4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ void load_x4_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ uint32_t pack(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}

__device__ void load_tile(uint32_t tile, const __nv_bfloat16* rows, int first, int length) {
  for (int k = threadIdx.x; k < kKeys * 8; k += blockDim.x) {
    const int row = k >> 3, chunk = k & 7;
    const bool valid = first + row < length;
    copy_chunk(chunk_address(tile, row, chunk), rows + static_cast<size_t>(valid ? first + row : 0) * kDim + chunk * 8, valid);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(128) attention(const __nv_bfloat16* q, const __nv_bfloat16* k, const __nv_bfloat16* v,
                                                            __nv_bfloat16* out, float* lse, int length, float scale_log2, int causal) {
  extern __shared__ __align__(128) char memory[];
  const uint32_t q_tile = shared_address(memory), k_tiles = q_tile + kRows * 128, v_tiles = k_tiles + 2 * kKeys * 128;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
  const size_t head = static_cast<size_t>(blockIdx.y) * length * kDim;
  const int first_row = blockIdx.x * kRows;
  const int steps = (min(length, causal ? first_row + kRows : length) + kKeys - 1) / kKeys;

  load_tile(q_tile, q + head, first_row, length);
  load_tile(k_tiles, k + head, 0, length);
  load_tile(v_tiles, v + head, 0, length);
  commit();

  uint32_t q_frag[4][4];
  float o[8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  for (int step = 0; step < steps; ++step) {
    const uint32_t k_tile = k_tiles + (step & 1) * kKeys * 128, v_tile = v_tiles + (step & 1) * kKeys * 128;
    if (step + 1 < steps) {
      load_tile(k_tiles + ((step + 1) & 1) * kKeys * 128, k + head, (step + 1) * kKeys, length);
      load_tile(v_tiles + ((step + 1) & 1) * kKeys * 128, v + head, (step + 1) * kKeys, length);
    }
    commit();
    wait<1>();
    __syncthreads();
    if (step == 0) {
#pragma unroll
      for (int kk = 0; kk < 4; ++kk) load_x4(q_frag[kk], chunk_address(q_tile, warp * 16 + (lane & 15), 2 * kk + (lane >> 4)));
    }

    float s[8][4] = {};
#pragma unroll
    for (int kk = 0; kk < 4; ++kk) {
#pragma unroll
      for (int n = 0; n < 8; n += 2) {
        uint32_t b[4];
        load_x4(b, chunk_address(k_tile, n * 8 + (lane & 7) + ((lane >> 4) << 3), 2 * kk + ((lane >> 3) & 1)));
        mma(s[n], q_frag[kk], b[0], b[1]);
        mma(s[n + 1], q_frag[kk], b[2], b[3]);
      }
    }

    const int base = step * kKeys;
    if (base + kKeys > length || (causal && base + kKeys > first_row + warp * 16)) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = base + n * 8 + quad * 2 + (e & 1), row = first_row + warp * 16 + group + (e >> 1) * 8;
          if (key >= length || (causal && key > row)) s[n][e] = -INFINITY;
        }
      }
    }

#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float m = top[h];
#pragma unroll
      for (int n = 0; n < 8; ++n) m = fmaxf(m, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
      const float shift = m == -INFINITY ? 0.f : m * scale_log2, change = exp2_fast(top[h] * scale_log2 - shift);
      top[h] = m;
      float part = 0;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        s[n][2 * h] = exp2_fast(fmaf(s[n][2 * h], scale_log2, -shift));
        s[n][2 * h + 1] = exp2_fast(fmaf(s[n][2 * h + 1], scale_log2, -shift));
        part += s[n][2 * h] + s[n][2 * h + 1];
        o[n][2 * h] *= change;
        o[n][2 * h + 1] *= change;
      }
      sum[h] = sum[h] * change + part;
    }

#pragma unroll
    for (int kk = 0; kk < 4; ++kk) {
      const uint32_t p[4] = {pack(s[2 * kk][0], s[2 * kk][1]), pack(s[2 * kk][2], s[2 * kk][3]), pack(s[2 * kk + 1][0], s[2 * kk + 1][1]),
                             pack(s[2 * kk + 1][2], s[2 * kk + 1][3])};
#pragma unroll
      for (int n = 0; n < 8; n += 2) {
        uint32_t b[4];
        load_x4_transposed(b, chunk_address(v_tile, kk * 16 + (lane & 15), n + (lane >> 4)));
        mma(o[n], p, b[0], b[1]);
        mma(o[n + 1], p, b[2], b[3]);
      }
    }
    __syncthreads();
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
    sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
    const int row = first_row + warp * 16 + group + h * 8;
    if (row >= length) continue;
    const float inverse = sum[h] == 0.f ? 0.f : 1.f / sum[h];
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      *reinterpret_cast<uint32_t*>(out + head + static_cast<size_t>(row) * kDim + n * 8 + quad * 2) =
          pack(o[n][2 * h] * inverse, o[n][2 * h + 1] * inverse);
    }
    if (quad == 0) lse[static_cast<size_t>(blockIdx.y) * length + row] = top[h] * scale_log2 * 0.69314718f + logf(sum[h]);
  }
}
