// Decoding in f32, exact: FFMA alone, no tensor cores.
//
// A tile has 8 rows; a warp takes 8 keys a step. For scores, lane = key + 8 * part, and part p has every fourth 16-byte group of the head
// dim; the four parts are added up in two exchanges that leave each lane two rows of its key. For values, lanes run along the head dim
// (below 128 several keys at a time), and weights come from shared memory by broadcast. Rows have a pitch of dim + 4 floats, so that eight
// lanes that read 16 bytes of eight neighbouring rows meet no bank twice.
#include "attention_decode.cuh"

namespace fovea::cuda {

template <int kDim, bool kProgram>
class DecodeF32 {
 public:
  static constexpr int kWarps = decode_warps_f32(kDim), kRows = kDecodeRowsF32, kKeys = kDecodeKeysF32, kSlots = decode_slots_f32(kDim);
  static constexpr int kPitch = kDim + 4, kSlotBytes = kKeys * kPitch * 4;
  static constexpr int kLanes = kDim < 128 ? kDim / 4 : 32, kGroups = kDim <= 128 ? 1 : kDim / 128;  // along a row of values
  static_assert(kRows * kPitch * 4 <= kSlots * kSlotBytes);
  struct Fill {
    template <class Rows>
    static __device__ __forceinline__ void fill(uint32_t slot, const Rows& rows, int dim, int64_t step, bool wide) {
      constexpr int kPieces = kDim / 4, kRowStep = kPieces < 32 ? 32 / kPieces : 1, kColumnStep = kPieces < 32 ? kDim : 128;
      const int row0 = kPieces < 32 ? decode_lane() / kPieces : 0, d0 = decode_lane() % kPieces * 4;
      const uint32_t to = slot + static_cast<uint32_t>(row0 * kPitch + d0) * 4;
      if (wide) {
#pragma unroll
        for (int i = 0; i < kKeys; i += kRowStep) {
          const float* from = rows(row0 + i);
#pragma unroll
          for (int d = 0; d < kDim; d += kColumnStep) {
            const bool there = from && d0 + d < dim;
            copy_async(to + static_cast<uint32_t>(i * kPitch + d) * 4, there ? from + d0 + d : rows.fallback(), there ? 16 : 0);
          }
        }
        return;
      }
#pragma unroll 1
      for (int i = 0; i < kKeys; i += kRowStep) {
        const float* from = rows(row0 + i);
#pragma unroll 1
        for (int d = 0; d < kDim; d += kColumnStep) {
          uint32_t words[4] = {};
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (from && d0 + d + e < dim) words[e] = __float_as_uint(from[(d0 + d + e) * step]);
          store_shared(to + static_cast<uint32_t>(i * kPitch + d) * 4, make_uint4(words[0], words[1], words[2], words[3]));
        }
      }
    }
  };
  using Ring = DecodeRing<float, kKeys, kSlots, kSlotBytes, kWarps, Fill>;
  struct alignas(128) Shared {
    float weights[kWarps][kKeys][kRows];
    float changes[kWarps][kRows];
    float tops[kWarps][kRows], sums[kWarps][kRows];
    uint32_t there[kWarps][kSlots];
  };

  __device__ __forceinline__ DecodeF32(const AttentionDecodeParams& params, float* memory, Shared& shared)
      : params_(params),
        p_(params.attention.call),
        at_(decode_place(params, kRows)),
        queries_(memory),
        memory_(memory + kRows * kDim),
        shared_(shared) {}

  __device__ __forceinline__ void run() {
    if (params_.splits > 1 && at_.begin >= at_.end) return leave_decode(params_, at_);
#pragma unroll
    for (int r = 0; r < kRows; r++)
#pragma unroll
      for (int d = 0; d < kGroups * 4; d++) out_[r][d] = 0;
    float* const ring_memory = memory_ + decode_warp() * kSlots * kSlotBytes / 4;
    const uint32_t ring_address = shared_address(ring_memory);
    Ring ring(params_, at_, ring_address, shared_.there[decode_warp()]);
    load_queries();
    __syncthreads();
    const int part = decode_lane() / kKeys;
    const DecodeRow rows[2] = {{p_, at_, part * 2}, {p_, at_, part * 2 + 1}};
    for (int j0 = at_.begin + decode_warp() * kKeys; j0 < at_.end; j0 += kWarps * kKeys) {
      const uint32_t keys = ring.advance();
      score(rows, ring_memory + (keys - ring_address) / 4, j0, ring.present());
      const uint32_t values = ring.advance();
      weigh(ring_memory + (values - ring_address) / 4);
    }
    wait_copies<0>();
    __syncthreads();
    finish();
  }

 private:
  __device__ __forceinline__ void load_queries() {
    for (int i = decode_warp() * 32 + decode_lane(); i < kRows * kDim; i += kWarps * 32) {
      const int r = i / kDim, d = i % kDim;
      float x = 0;
      if (r < at_.rows && d < p_.dim)
        x = static_cast<const float*>(p_.q.data)[at_.seq.batch * p_.q.sb + at_.head(r) * p_.q.sh + at_.query(r) * p_.q.sl + d * p_.q.sd];
      queries_[i] = x;
    }
  }

  // Weights of the keys at j0 to shared memory, sums and outputs scaled to the new maxima.
  __device__ __forceinline__ void score(const DecodeRow (&rows)[2], const float* slot, int j0, uint32_t present) {
    const int lane = decode_lane(), key = lane % kKeys, part = lane / kKeys;
    float s[kRows] = {};
#pragma unroll 4
    for (int d = part * 4; d < kDim; d += 16) {
      const float4 k = *reinterpret_cast<const float4*>(slot + key * kPitch + d);
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        const float4 q = *reinterpret_cast<const float4*>(queries_ + r * kDim + d);
        s[r] = dot_add(q, k, s[r]);
      }
    }
    float half[4], mine[2];
#pragma unroll
    for (int r = 0; r < 4; r++) {
      const bool high = part >= 2;
      half[r] = (high ? s[r + 4] : s[r]) + __shfl_xor_sync(~0u, high ? s[r] : s[r + 4], 16);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const bool high = part % 2 != 0;
      mine[r] = (high ? half[r + 2] : half[r]) + __shfl_xor_sync(~0u, high ? half[r] : half[r + 2], 8);
    }
    float top[2], shift[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      if constexpr (kProgram) begin_scores(at_.seq.index, rows[r].head);
      const float s = decode_score<kProgram>(p_, at_, rows[r], mine[r], j0 + key);
      mine[r] = present >> key & 1 && decode_sees(p_, rows[r], j0 + key) ? s : -infinity();
      top[r] = fmaxf(top_[r], mine[r]);
#pragma unroll
      for (int step = 1; step < kKeys; step *= 2) top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], step));
      shift[r] = top[r] == -infinity() ? 0.f : top[r];
    }
    if (__any_sync(~0u, top[0] > top_[0] || top[1] > top_[1])) {
      float* changes = shared_.changes[decode_warp()];
      __syncwarp();
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const float change = exp2_fast(top_[r] - shift[r]);
        top_[r] = top[r], sum_[r] *= change;
        if (key == 0) changes[part * 2 + r] = change;
      }
      __syncwarp();
#pragma unroll
      for (int r = 0; r < kRows; r++)
#pragma unroll
        for (int d = 0; d < kGroups * 4; d++) out_[r][d] *= changes[r];
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      mine[r] = exp2_fast(mine[r] - shift[r]);
      sum_[r] += mine[r];
    }
    *reinterpret_cast<float2*>(&shared_.weights[decode_warp()][key][part * 2]) = make_float2(mine[0], mine[1]);
  }

  __device__ __forceinline__ void weigh(const float* slot) {
    const int lane = decode_lane();
#pragma unroll 2
    for (int j = lane / kLanes; j < kKeys; j += 32 / kLanes) {
      const float4* weights = reinterpret_cast<const float4*>(shared_.weights[decode_warp()][j]);
      const float4 low = weights[0], high = weights[1];
      const float w[kRows] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int g = 0; g < kGroups; g++) {
        const float4 v = *reinterpret_cast<const float4*>(slot + j * kPitch + (g * 32 + lane % kLanes) * 4);
#pragma unroll
        for (int r = 0; r < kRows; r++) scale_add(out_[r] + g * 4, w[r], v);
      }
    }
    __syncwarp();
  }

  __device__ __forceinline__ void finish() {
    const int lane = decode_lane();
    float* outs = memory_ + decode_warp() * kRows * kPitch;
#pragma unroll
    for (int r = 0; r < kRows; r++)
#pragma unroll
      for (int g = 0; g < kGroups; g++) {
        float* o = out_[r] + g * 4;
#pragma unroll
        for (int step = kLanes; step < 32; step *= 2)
#pragma unroll
          for (int e = 0; e < 4; e++) o[e] += __shfl_xor_sync(~0u, o[e], step);
        if (lane < kLanes) *reinterpret_cast<float4*>(outs + r * kPitch + (g * 32 + lane) * 4) = make_float4(o[0], o[1], o[2], o[3]);
      }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float sum = sum_[r];
#pragma unroll
      for (int step = 1; step < kKeys; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
      const int row = lane / kKeys * 2 + r;
      if (lane % kKeys == 0) shared_.tops[decode_warp()][row] = top_[r], shared_.sums[decode_warp()][row] = sum;
    }
    __syncthreads();
    finish_decode<float, kWarps, kRows, kDim, kPitch>(params_, at_, memory_, shared_.tops[0], shared_.sums[0]);
  }

  const AttentionDecodeParams& params_;
  const AttentionParams& p_;
  const DecodePlace& at_;
  float *const queries_, *const memory_;
  Shared& shared_;
  float out_[kRows][kGroups * 4];
  float top_[2] = {-infinity(), -infinity()}, sum_[2] = {0, 0};
};

template <class, int kDim, bool kProgram>
__device__ __forceinline__ void attention_decode(const AttentionDecodeParams& params) {
  using Kernel = DecodeF32<kDim, kProgram>;
  extern __shared__ __align__(128) float memory[];
  __shared__ typename Kernel::Shared shared;
  Kernel(params, memory, shared).run();
}

}  // namespace fovea::cuda

#define ELEMENT f32
#include "attention_decode_entries.cuh"
