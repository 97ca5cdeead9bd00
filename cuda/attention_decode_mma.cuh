// Decoding in bf16 and f16 by mma.sync: 16 rows, one tile, whatever part of it is in use, by 16 keys a warp and step. The output stays in
// registers and is scaled only where a maximum grew; so do Q fragments, up to head dim 128.
#pragma once

#include "attention_decode.cuh"
#include "tile_products.cuh"

namespace fovea::cuda {

template <class T, int kDim, bool kProgram>
class Decode {
 public:
  static constexpr int kWarps = decode_warps(kDim), kRows = kDecodeRows, kKeys = kDecodeKeys, kSlots = decode_slots(kDim);
  static constexpr int kSlotBytes = kKeys * Tile<kDim>::kRowBytes, kPitch = kDim + 8;
  static constexpr bool kKeepQueries = kDim <= 128;
  static_assert(kWarps * kRows * (kPitch + 2) * 4 <= kWarps * kSlots * kSlotBytes);
  struct Fill {
    template <class Rows>
    static __device__ __forceinline__ void fill(uint32_t slot, const Rows& rows, int dim, int64_t step, bool wide) {
      Tile<kDim>::template fill<kKeys, 32>(slot, rows, dim, step, wide);
    }
  };
  using Ring = DecodeRing<uint16_t, kKeys, kSlots, kSlotBytes, kWarps, Fill>;

  __device__ __forceinline__ Decode(const AttentionDecodeParams& params, float* memory, uint32_t* there)
      : params_(params),
        p_(params.attention.call),
        at_(decode_place(params, kRows)),
        memory_(memory),
        there_(there + decode_warp() * kSlots),
        q_tile_(shared_address(memory) + kWarps * kSlots * kSlotBytes) {}

  __device__ __forceinline__ void run() {
    if (params_.splits > 1 && at_.begin >= at_.end) return leave_decode(params_, at_);
    clear(out_);
    Ring ring(params_, at_, shared_address(memory_) + static_cast<uint32_t>(decode_warp() * kSlots * kSlotBytes), there_);
    load_queries();
    const DecodeRow rows[2] = {{p_, at_, decode_lane() >> 2}, {p_, at_, (decode_lane() >> 2) + 8}};
    for (int j0 = at_.begin + decode_warp() * kKeys; j0 < at_.end; j0 += kWarps * kKeys) {
      const uint32_t keys = ring.advance();
      score(rows, keys, j0, ring.present());
      weigh(ring.advance());
    }
    wait_copies<0>();
    __syncthreads();
    finish();
  }

 private:
  // Row r of the tile of queries, for Tile::fill.
  struct QueryRow {
    const AttentionParams& p;
    const DecodePlace& at;
    __device__ __forceinline__ const uint16_t* fallback() const { return nullptr; }
    __device__ __forceinline__ const uint16_t* operator()(int r) const {
      if (r >= at.rows) return nullptr;
      return static_cast<const uint16_t*>(p.q.data) + at.seq.batch * p.q.sb + at.head(r) * p.q.sh + at.query(r) * p.q.sl;
    }
  };

  __device__ __forceinline__ void load_queries() {
    if (decode_warp() == 0) Tile<kDim>::template fill<kRows, 32>(q_tile_, QueryRow{p_, at_}, static_cast<int>(p_.dim), p_.q.sd, false);
    __syncthreads();
    if constexpr (kKeepQueries)
#pragma unroll
      for (int kk = 0; kk < kDim / 16; kk++) load_rows<kDim>(q_[kk], q_lane(), kk);
  }
  __device__ __forceinline__ uint32_t q_lane() const { return Tile<kDim>::lane_rows(q_tile_, 0, decode_lane()); }

  // Scores of the keys at j0 in base-2 units, -inf where masked.
  __device__ __forceinline__ void score(const DecodeRow (&rows)[2], uint32_t slot, int j0, uint32_t present) {
    clear(s_);
    multiply_rows<T, kDim>(
        as_tiles(s_), Tile<kDim>::lane_columns(slot, 0, decode_lane()), [&](uint32_t(&room)[1][4], int kk) -> const auto& {
          if constexpr (kKeepQueries) return q_[kk];
          else return load_rows<kDim>(room, q_lane(), kk);
        });
    const bool full = j0 >= at_.full_begin && j0 + kKeys <= at_.full_end && present == (1u << kKeys) - 1 && !p_.mask.data;
    if (!kProgram && full && !(p_.softcap > 0) && !p_.bias.data) {
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) s_[n][e] *= p_.scale * kLog2E;
      return;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const DecodeRow& row = rows[h];
      if constexpr (kProgram) begin_scores(at_.seq.index, row.head);
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
          const int key = n * 8 + (decode_lane() & 3) * 2 + odd;
          float& s = s_[n][2 * h + odd];
          s = decode_score<kProgram>(p_, at_, row, s, j0 + key);
          if (!full && !(present >> key & 1 && decode_sees(p_, row, j0 + key))) s = -infinity();
        }
    }
  }

  // O = O 2^(old maximum - maximum) + P V.
  __device__ __forceinline__ void weigh(uint32_t slot) {
    float top[2], shift[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      top[h] = fmaxf(fmaxf(s_[0][2 * h], s_[0][2 * h + 1]), fmaxf(s_[1][2 * h], s_[1][2 * h + 1]));
      top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 1));
      top[h] = fmaxf(top_[h], fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 2)));
      shift[h] = top[h] == -infinity() ? 0.f : top[h];
    }
    if (__any_sync(~0u, top[0] > top_[0] || top[1] > top_[1])) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float change = exp2_fast(top_[h] - shift[h]);
        top_[h] = top[h], sum_[h] *= change;
#pragma unroll
        for (int n = 0; n < kDim / 8; n++) out_[n][2 * h] *= change, out_[n][2 * h + 1] *= change;
      }
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        s_[n][e] = exp2_fast(s_[n][e] - shift[e >> 1]);
        sum_[e >> 1] += s_[n][e];
      }
    multiply_weights<T, kDim>(out_, s_, Tile<kDim>::lane_rows(slot, 0, decode_lane()));
  }

  __device__ __forceinline__ void finish() {
    const int lane = decode_lane();
    float *outs = memory_ + decode_warp() * kRows * kPitch, *tops = memory_ + kWarps * kRows * kPitch, *sums = tops + kWarps * kRows;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = (lane >> 2) + h * 8;
      float sum = sum_[h];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
#pragma unroll
      for (int n = 0; n < kDim / 8; n++)
        *reinterpret_cast<float2*>(outs + r * kPitch + n * 8 + (lane & 3) * 2) = make_float2(out_[n][2 * h], out_[n][2 * h + 1]);
      if ((lane & 3) == 0) tops[decode_warp() * kRows + r] = top_[h], sums[decode_warp() * kRows + r] = sum;
    }
    __syncthreads();
    finish_decode<T, kWarps, kRows, kDim, kPitch>(params_, at_, memory_, tops, sums);
  }

  const AttentionDecodeParams& params_;
  const AttentionParams& p_;
  const DecodePlace& at_;
  float* const memory_;
  uint32_t* const there_;
  const uint32_t q_tile_;
  uint32_t q_[kKeepQueries ? kDim / 16 : 1][1][4];
  float s_[2][4], out_[kDim / 8][4];
  float top_[2] = {-infinity(), -infinity()}, sum_[2] = {0, 0};
};

template <class T, int kDim, bool kProgram>
__device__ __forceinline__ void attention_decode(const AttentionDecodeParams& params) {
  using Kernel = Decode<T, kDim, kProgram>;
  extern __shared__ __align__(128) float memory[];
  __shared__ __align__(128) uint32_t there[32];
  static_assert(Kernel::kWarps * Kernel::kSlots <= 32);
  Kernel(params, memory, there).run();
}

}  // namespace fovea::cuda
