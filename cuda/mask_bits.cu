// Bit matrices of mask tiles: the interpreter of mask programs on the device.
//
// A warp has 32 queries of a tile in its lanes. It computes what depends on them once, what depends on the keys for 32 keys at a time with
// keys in lanes, and the rest for kMaskRows keys at a time, so that one decoded instruction serves 256 pairs. Values lie in a register file
// of its own, in shared memory where that is large enough. A row of bits is then one ballot. Lanes of all blocks run the same program, so
// nothing diverges.
// Every operation rounds as on the CPU (cpu/program_step.h), and each is an instruction of its own, so that nothing is fused.
#include "cuda/mask_bits_params.h"
#include "global_pointer.cuh"

namespace fovea::cuda {
namespace {

__device__ __forceinline__ float f32(int32_t bits) { return __int_as_float(bits); }
__device__ __forceinline__ int32_t bits_of(float x) { return __float_as_int(x); }
__device__ __forceinline__ int32_t truth(bool x) { return x ? -1 : 0; }
__device__ __forceinline__ int32_t wrap(uint32_t x) { return static_cast<int32_t>(x); }
__device__ __forceinline__ uint32_t u32(int32_t x) { return static_cast<uint32_t>(x); }

__device__ __forceinline__ int32_t divide(int32_t a, int32_t b) { return b == 0 ? 0 : b == -1 ? wrap(0u - u32(a)) : a / b; }
__device__ __forceinline__ int32_t remainder_of(int32_t a, int32_t b) { return b == 0 || b == -1 ? 0 : a % b; }
__device__ __forceinline__ bool unordered(float a, float b) { return a != a || b != b; }
// NaN where either is NaN, and -0 below +0.
__device__ __forceinline__ float minimum(float a, float b) {
  return unordered(a, b) ? __fadd_rn(a, b) : a == b ? f32(bits_of(a) | bits_of(b)) : a < b ? a : b;
}
__device__ __forceinline__ float maximum(float a, float b) {
  return unordered(a, b) ? __fadd_rn(a, b) : a == b ? f32(bits_of(a) & bits_of(b)) : a > b ? a : b;
}
__device__ __forceinline__ float rounded(float x) {
  const float low = floorf(x);
  return __fadd_rn(x, -low) >= 0.5f ? __fadd_rn(low, 1.f) : low;
}
__device__ __forceinline__ float sign(float x) { return x != x ? x : x > 0 ? 1.f : x < 0 ? -1.f : 0.f; }

__device__ __forceinline__ uint64_t mixed(uint64_t x) {
  x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27, x *= 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

template <class T>
__device__ __forceinline__ T sum_of_lanes(T x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

struct Inputs {
  int32_t batch, head, query, key;  // of this lane
};

class MaskVm {
 public:
  __device__ __forceinline__ MaskVm(const MaskBitsKernel& k, int32_t* file) : k_(k), file_(file), lane_(static_cast<int>(threadIdx.x)) {
    file_[0] = 0;
    __syncwarp();
  }

  // One group of the program for kRows rows from `first` of 32 keys on.
  template <int kRows>
  __device__ __forceinline__ void run(int group, const Inputs& in, int first) {
    for (int i = k_.begin[group]; i < k_.begin[group + 1]; i++) step<kRows>(k_.code[i], in, first);
  }
  __device__ __forceinline__ bool result(int row, int first) const {
    const Place at(*this, k_.result, first);
    return *at[row] != 0;
  }

 private:
  // Where an operand is, for this lane and all rows.
  struct Place {
    int32_t* base;
    int step;
    __device__ __forceinline__ Place(const MaskVm& vm, MaskOperand operand, int first) {
      const auto how = static_cast<MaskStep>(operand.code >> 30);
      base = vm.file_ + (operand.code & 0x3fffffff);
      step = how == MaskStep::PerPair ? kMaskLanes : how == MaskStep::PerRow ? 1 : 0;
      base += how == MaskStep::PerRow ? first : how == MaskStep::Same ? 0 : vm.lane_;
    }
    __device__ __forceinline__ int32_t* operator[](int row) const { return base + row * step; }
  };

  template <int kRows>
  __device__ __forceinline__ void step(const MaskDeviceInstr instr, const Inputs& in, int first) {
    int32_t a[kRows], b[kRows], c[kRows], x[kRows];
    auto load = [&](int32_t(&to)[kRows], MaskOperand operand) {
      const Place at(*this, operand, first);
#pragma unroll
      for (int r = 0; r < kRows; r++) to[r] = *at[r];
    };
    load(a, instr.a);
    load(b, instr.b);
    auto each = [&](auto f) {
#pragma unroll
      for (int r = 0; r < kRows; r++) x[r] = f(a[r], b[r]);
    };
    auto floats = [&](auto f) { each([&](int32_t p, int32_t q) { return bits_of(f(f32(p), f32(q))); }); };
    auto compare = [&](auto f) { each([&](int32_t p, int32_t q) { return truth(f(f32(p), f32(q))); }); };
    switch (static_cast<MaskOp>(instr.op)) {
      case MaskOp::Batch: each([&](int32_t, int32_t) { return in.batch; }); break;
      case MaskOp::Head: each([&](int32_t, int32_t) { return in.head; }); break;
      case MaskOp::Query: each([&](int32_t, int32_t) { return in.query; }); break;
      case MaskOp::Key: each([&](int32_t, int32_t) { return in.key; }); break;
      case MaskOp::ConstI:
      case MaskOp::ConstF: each([&](int32_t, int32_t) { return instr.immediate; }); break;
      case MaskOp::LoadI:
      case MaskOp::LoadF: look_up<kRows>(k_.tables[instr.immediate], a, x); break;
      case MaskOp::AddI: each([](int32_t p, int32_t q) { return wrap(u32(p) + u32(q)); }); break;
      case MaskOp::SubI: each([](int32_t p, int32_t q) { return wrap(u32(p) - u32(q)); }); break;
      case MaskOp::MulI: each([](int32_t p, int32_t q) { return wrap(u32(p) * u32(q)); }); break;
      case MaskOp::DivI: each([](int32_t p, int32_t q) { return divide(p, q); }); break;
      case MaskOp::RemI: each([](int32_t p, int32_t q) { return remainder_of(p, q); }); break;
      case MaskOp::NegI: each([](int32_t p, int32_t) { return wrap(0u - u32(p)); }); break;
      case MaskOp::AbsI: each([](int32_t p, int32_t) { return p < 0 ? wrap(0u - u32(p)) : p; }); break;
      case MaskOp::MinI: each([](int32_t p, int32_t q) { return p < q ? p : q; }); break;
      case MaskOp::MaxI: each([](int32_t p, int32_t q) { return p > q ? p : q; }); break;
      case MaskOp::AndB:
      case MaskOp::AndI: each([](int32_t p, int32_t q) { return p & q; }); break;
      case MaskOp::OrB:
      case MaskOp::OrI: each([](int32_t p, int32_t q) { return p | q; }); break;
      case MaskOp::XorI: each([](int32_t p, int32_t q) { return p ^ q; }); break;
      case MaskOp::NotB:
      case MaskOp::NotI: each([](int32_t p, int32_t) { return ~p; }); break;
      case MaskOp::ShlI: each([](int32_t p, int32_t q) { return wrap(u32(p) << (q & 31)); }); break;
      case MaskOp::ShrI: each([](int32_t p, int32_t q) { return p >> (q & 31); }); break;
      case MaskOp::ShrU: each([](int32_t p, int32_t q) { return wrap(u32(p) >> (q & 31)); }); break;
      case MaskOp::EqI: each([](int32_t p, int32_t q) { return truth(p == q); }); break;
      case MaskOp::NeI: each([](int32_t p, int32_t q) { return truth(p != q); }); break;
      case MaskOp::LtI: each([](int32_t p, int32_t q) { return truth(p < q); }); break;
      case MaskOp::LeI: each([](int32_t p, int32_t q) { return truth(p <= q); }); break;
      case MaskOp::AddF: floats([](float p, float q) { return __fadd_rn(p, q); }); break;
      case MaskOp::SubF: floats([](float p, float q) { return __fsub_rn(p, q); }); break;
      case MaskOp::MulF: floats([](float p, float q) { return __fmul_rn(p, q); }); break;
      case MaskOp::DivF: floats([](float p, float q) { return __fdiv_rn(p, q); }); break;
      case MaskOp::RemF: floats([](float p, float q) { return fmodf(p, q); }); break;
      case MaskOp::NegF: each([](int32_t p, int32_t) { return p ^ INT32_MIN; }); break;
      case MaskOp::AbsF: each([](int32_t p, int32_t) { return p & INT32_MAX; }); break;
      case MaskOp::MinF: floats([](float p, float q) { return minimum(p, q); }); break;
      case MaskOp::MaxF: floats([](float p, float q) { return maximum(p, q); }); break;
      case MaskOp::FloorF: floats([](float p, float) { return floorf(p); }); break;
      case MaskOp::CeilF: floats([](float p, float) { return ceilf(p); }); break;
      case MaskOp::TruncF: floats([](float p, float) { return truncf(p); }); break;
      case MaskOp::RoundF: floats([](float p, float) { return rounded(p); }); break;
      case MaskOp::SqrtF: floats([](float p, float) { return __fsqrt_rn(p); }); break;
      case MaskOp::SignF: floats([](float p, float) { return sign(p); }); break;
      case MaskOp::EqF: compare([](float p, float q) { return p == q; }); break;
      case MaskOp::NeF: compare([](float p, float q) { return p != q; }); break;
      case MaskOp::LtF: compare([](float p, float q) { return p < q; }); break;
      case MaskOp::LeF: compare([](float p, float q) { return p <= q; }); break;
      case MaskOp::SelectI:
      case MaskOp::SelectF:
      case MaskOp::SelectB: load(c, instr.c);
#pragma unroll
        for (int r = 0; r < kRows; r++) x[r] = c[r] ? a[r] : b[r];
        break;
      case MaskOp::IntToFloat: each([](int32_t p, int32_t) { return bits_of(__int2float_rn(p)); }); break;
      case MaskOp::FloatToInt: each([](int32_t p, int32_t) { return f32(p) != f32(p) ? 0 : __float2int_rz(f32(p)); }); break;
      case MaskOp::BoolToInt: each([](int32_t p, int32_t) { return p & 1; }); break;
      case MaskOp::BoolToFloat: each([](int32_t p, int32_t) { return p & 0x3f800000; }); break;
      default: __trap();  // the host lets no other through
    }
    const Place to(*this, instr.out, first);
#pragma unroll
    for (int r = 0; r < kRows; r++) *to[r] = x[r];
  }

  template <int kRows>
  __device__ __forceinline__ void look_up(const MaskTable& table, const int32_t (&index)[kRows], int32_t (&x)[kRows]) const {
    const int64_t last = table.length - 1;
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      const int64_t at = index[r] < 0 ? 0 : index[r] < last ? index[r] : last;
      x[r] = table.dtype == 2 ? global(static_cast<const uint8_t*>(table.data))[at] : global(static_cast<const int32_t*>(table.data))[at];
    }
  }

  const MaskBitsKernel& k_;
  int32_t* const file_;
  const int lane_;
};

// The bits of 32 queries of a tile to memory; adds up how many there are, and their hash.
__device__ __forceinline__ void evaluate_queries(const MaskBitsKernel& k, MaskVm& vm, int64_t tile, int group, int64_t& ones,
                                                 uint64_t& hash) {
  const MaskBitsParams& p = k.params;
  const MaskBitsTile& at = p.tiles[tile];
  const int lane = static_cast<int>(threadIdx.x), row_bytes = p.block_q / 8;
  const int64_t q0 = static_cast<int64_t>(at.q_block) * p.block_q + group * kMaskLanes,
                kv0 = static_cast<int64_t>(at.kv_block) * p.block_kv;
  const int64_t queries = min(p.q_length - q0, static_cast<int64_t>(p.block_q - group * kMaskLanes));
  const uint32_t there = queries >= kMaskLanes ? ~0u : queries <= 0 ? 0u : (1u << queries) - 1;
  Inputs in{at.b, at.h, static_cast<int32_t>(q0) + lane, 0};
  vm.run<1>(0, in, 0);
  __syncwarp();
  vm.run<1>(1, in, 0);
  for (int first = 0; first < p.block_kv; first += kMaskLanes) {
    const int64_t keys = min(p.kv_length - kv0, static_cast<int64_t>(p.block_kv)) - first;
    uint32_t mine = 0;  // of the key of this lane
    if (keys > 0) {
      in.key = static_cast<int32_t>(kv0) + first + min(lane, static_cast<int>(min(keys, static_cast<int64_t>(kMaskLanes))) - 1);
      __syncwarp();
      vm.run<1>(2, in, 0);
      __syncwarp();
      for (int row = 0; row < kMaskLanes && row < keys; row += kMaskRows) {
        vm.run<kMaskRows>(3, in, row);
#pragma unroll
        for (int r = 0; r < kMaskRows; r++) {
          const uint32_t word = __ballot_sync(~0u, vm.result(r, row)) & there;
          if (row + r == lane && lane < keys) mine = word;
        }
      }
    }
    if (first + lane >= p.block_kv) continue;
    auto* to = reinterpret_cast<uint16_t*>(p.bits + (tile * p.block_kv + first + lane) * row_bytes) + group * 2;
    to[0] = static_cast<uint16_t>(mine);
    if (group * kMaskLanes + 16 < p.block_q) to[1] = static_cast<uint16_t>(mine >> 16);
    ones += __popc(mine);
    hash += mixed(static_cast<uint64_t>(group * p.block_kv + first + lane) << 32 | mine);
  }
  __syncwarp();
}

__device__ __forceinline__ void evaluate_tile(const MaskBitsKernel& k, MaskVm& vm, int64_t tile) {
  __shared__ int64_t warp_ones[kMaskWarps];
  __shared__ uint64_t warp_hash[kMaskWarps];
  const MaskBitsParams& p = k.params;
  int64_t ones = 0;
  uint64_t hash = 0;
  for (int group = static_cast<int>(threadIdx.y); group * kMaskLanes < p.block_q; group += kMaskWarps)
    evaluate_queries(k, vm, tile, group, ones, hash);
  ones = sum_of_lanes(ones), hash = sum_of_lanes(hash);
  __syncthreads();
  if (threadIdx.x == 0) warp_ones[threadIdx.y] = ones, warp_hash[threadIdx.y] = hash;
  __syncthreads();
  if (threadIdx.x != 0 || threadIdx.y != 0) return;
  for (int w = 1; w < kMaskWarps; w++) ones += warp_ones[w], hash += warp_hash[w];
  const MaskBitsTile& at = p.tiles[tile];
  const int64_t queries = min(p.q_length - static_cast<int64_t>(at.q_block) * p.block_q, static_cast<int64_t>(p.block_q));
  const int64_t keys = min(p.kv_length - static_cast<int64_t>(at.kv_block) * p.block_kv, static_cast<int64_t>(p.block_kv));
  p.classes[tile] = ones == 0 ? MaskTileClass::Empty : ones == queries * keys ? MaskTileClass::Full : MaskTileClass::Mixed;
  p.hashes[tile] = hash;
}

__device__ __forceinline__ void evaluate_tiles(const MaskBitsKernel& k, int32_t* file) {
  MaskVm vm(k, file);
  for (int64_t tile = blockIdx.x; tile < k.count; tile += gridDim.x) evaluate_tile(k, vm, tile);
}

struct alignas(16) SixteenBytes {
  uint64_t low, high;
  __device__ __forceinline__ bool operator!=(const SixteenBytes& other) const { return ((low ^ other.low) | (high ^ other.high)) != 0; }
};

// Compares tile `tile` with the first of its number, word by word, or copies it where it is the first.
template <class Word>
__device__ __forceinline__ void collect_tile(const MaskBitsDistinct& k, int64_t tile, int32_t id) {
  const int64_t first = k.first[id];
  const auto* mine = reinterpret_cast<const Word*>(k.bits + tile * k.tile_bytes);
  const auto* other = reinterpret_cast<const Word*>(k.bits + first * k.tile_bytes);
  auto* to = reinterpret_cast<Word*>(k.distinct + id * k.tile_bytes);
  bool differs = false;
  for (int64_t i = threadIdx.x; i < k.tile_bytes / static_cast<int64_t>(sizeof(Word)); i += blockDim.x) {
    if (tile == first) to[i] = mine[i];
    else differs |= mine[i] != other[i];
  }
  if (differs) *k.differs = 1;
}

}  // namespace

extern "C" {
__global__ void __launch_bounds__(kMaskLanes* kMaskWarps) mask_bits_shared(const __grid_constant__ MaskBitsKernel k) {
  extern __shared__ int32_t files[];
  evaluate_tiles(k, files + static_cast<int>(threadIdx.y) * k.file_words);
}
__global__ void __launch_bounds__(kMaskLanes* kMaskWarps) mask_bits_memory(const __grid_constant__ MaskBitsKernel k) {
  evaluate_tiles(k, k.files + (static_cast<int64_t>(blockIdx.x) * kMaskWarps + threadIdx.y) * k.file_words);
}

__global__ void mask_bits_distinct(const __grid_constant__ MaskBitsDistinct k) {
  const int64_t tile = blockIdx.x;
  const int32_t id = k.id[tile];
  if (id < 0) return;
  if (k.tile_bytes % sizeof(SixteenBytes) == 0) collect_tile<SixteenBytes>(k, tile, id);
  else collect_tile<uint16_t>(k, tile, id);
}
}

}  // namespace fovea::cuda
