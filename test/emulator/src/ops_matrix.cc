// mma.sync, ldmatrix, stmatrix.
//
// In the PTX manual's fragment layouts a 16-bit A register, read over the 32 lanes, is an 8x8 block in row-major order (lane = 4*row +
// pair of columns), a B register the same of the transposed block, and two C registers interleave to rows. So operands are used where
// they lie: C rows are vectors of 8, B columns are strided shuffles, A elements are broadcast.
// The order and width of the hardware's sums are not those of this file; compare with a tolerance.
#include "access.h"
#include "map_lanes.h"
#include "numeric.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

constexpr InstrClass kCls = InstrClass::Matrix;
typedef f32 vec4 __attribute__((vector_size(16)));
typedef f32 vec8 __attribute__((vector_size(32)));
typedef u32 word8 __attribute__((vector_size(32)));
typedef u32 word16 __attribute__((vector_size(64)));

template <class T>
FOVEA_INLINE T load_as(const void* p) {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}

FOVEA_INLINE bool whole_warp(Warp& w, const Instr& i, u32 mask) {
  if (w.live == kAllLanes && mask == kAllLanes) return true;
  if (w.live != kAllLanes)
    raise(FaultKind::Sync, w, i, __builtin_ctz(~w.live), "all 32 lanes must execute this, but lanes %08x don't exist or have exited",
          ~w.live);
  if (!w.gather(i, kAllLanes)) return false;
  if (mask != kAllLanes)
    raise(FaultKind::Sync, w, i, __builtin_ctz(~mask), "all 32 lanes must execute this, but the predicate is false in lanes %08x", ~mask);
  return true;
}

// Column t of the 8x4 words that a register holds over its lanes.
template <int t>
FOVEA_INLINE word8 column(const u32* r) {
  const word16 lo = load_as<word16>(r), hi = load_as<word16>(r + 16);
  return __builtin_shufflevector(lo, hi, t, t + 4, t + 8, t + 12, t + 16, t + 20, t + 24, t + 28);
}

template <class H>
FOVEA_INLINE vec8 halves_to_f32(word8 bits16) {  // each word holds one 16-bit value
  if constexpr (std::is_same_v<H, bf16>) {
    return std::bit_cast<vec8>(bits16 << 16);
  } else {
    vec8 r;
    for (int k = 0; k < 8; ++k) r[k] = to_f32(f16{static_cast<u16>(bits16[k])});
    return r;
  }
}

template <class H, int kBlocks, int t>
FOVEA_INLINE void split_b(const u32* const* b, vec8 (*out)[8]) {
  for (int kb = 0; kb < kBlocks; ++kb) {
    const word8 c = column<t>(b[kb]);
    out[kb][2 * t] = halves_to_f32<H>(c & 0xffffu);
    out[kb][2 * t + 1] = halves_to_f32<H>(c >> 16);
  }
}

FOVEA_INLINE vec8 load_row(const u32* even, const u32* odd, int g) {
  const vec4 e = load_as<vec4>(even + 4 * g), o = load_as<vec4>(odd + 4 * g);
  return __builtin_shufflevector(e, o, 0, 4, 1, 5, 2, 6, 3, 7);
}

FOVEA_INLINE void store_row(u32* even, u32* odd, int g, vec8 row) {
  const vec4 e = __builtin_shufflevector(row, row, 0, 2, 4, 6), o = __builtin_shufflevector(row, row, 1, 3, 5, 7);
  std::memcpy(even + 4 * g, &e, sizeof(e));
  std::memcpy(odd + 4 * g, &o, sizeof(o));
}

// Accumulators of type f32: registers 2h and 2h+1 are the even and odd columns of rows 8h..8h+7; of type f16: register h holds pairs.
template <class Acc>
FOVEA_INLINE vec8 load_acc(Warp& w, const Operand* c, int h, int g) {
  if constexpr (std::is_same_v<Acc, f32>) {
    return load_row(w.src<u32>(c[2 * h]), w.src<u32>(c[2 * h + 1]), g);
  } else {
    const u32* r = w.src<u32>(c[h]);
    vec8 row;
    for (int t = 0; t < 4; ++t) {
      row[2 * t] = to_f32(f16{static_cast<u16>(r[4 * g + t])});
      row[2 * t + 1] = to_f32(f16{static_cast<u16>(r[4 * g + t] >> 16)});
    }
    return row;
  }
}

template <class Acc>
FOVEA_INLINE void store_acc(Warp& w, const Operand* d, int h, int g, vec8 row) {
  if constexpr (std::is_same_v<Acc, f32>) {
    store_row(w.dst<u32>(d[2 * h]), w.dst<u32>(d[2 * h + 1]), g, row);
  } else {
    u32* r = w.dst<u32>(d[h]);
    for (int t = 0; t < 4; ++t) r[4 * g + t] = u32{to_f16(row[2 * t]).bits} | u32{to_f16(row[2 * t + 1]).bits} << 16;
  }
}

// m16n8k(8*kBlocks) of 16-bit inputs. ops: d, a (2*kBlocks), b (kBlocks), c
template <class H, int kBlocks, class Acc>
void mma_half(Warp& w, const Instr& i, u32 mask) {
  if (!whole_warp(w, i, mask)) return;
  constexpr int n_acc = std::is_same_v<Acc, f32> ? 4 : 2;
  const Operand *d = i.ops, *a = d + n_acc, *b = a + 2 * kBlocks, *c = b + kBlocks;
  const u32* b_regs[kBlocks];
  for (int kb = 0; kb < kBlocks; ++kb) b_regs[kb] = w.src<u32>(b[kb]);
  vec8 columns[kBlocks][8];
  split_b<H, kBlocks, 0>(b_regs, columns);
  split_b<H, kBlocks, 1>(b_regs, columns);
  split_b<H, kBlocks, 2>(b_regs, columns);
  split_b<H, kBlocks, 3>(b_regs, columns);
  alignas(64) f32 even[2 * kBlocks][kLanes], odd[2 * kBlocks][kLanes];
  for (int r = 0; r < 2 * kBlocks; ++r) {
    const u32* s = w.src<u32>(a[r]);
    for (int l = 0; l < kLanes; ++l) {
      even[r][l] = to_f32(H{static_cast<u16>(s[l])});
      odd[r][l] = to_f32(H{static_cast<u16>(s[l] >> 16)});
    }
  }
  vec8 rows[16];
#pragma GCC unroll 16
  for (int m = 0; m < 16; ++m) rows[m] = load_acc<Acc>(w, c, m >> 3, m & 7);
  for (int m = 0; m < 16; ++m) {
    const int h = m >> 3, g = m & 7;
    vec8 s = rows[m], u = {};
#pragma GCC unroll 4
    for (int kb = 0; kb < kBlocks; ++kb) {
#pragma GCC unroll 4
      for (int t = 0; t < 4; ++t) {
        s = s + even[h + 2 * kb][4 * g + t] * columns[kb][2 * t];
        u = u + odd[h + 2 * kb][4 * g + t] * columns[kb][2 * t + 1];
      }
    }
    rows[m] = s + u;
  }
#pragma GCC unroll 16
  for (int m = 0; m < 16; ++m) store_acc<Acc>(w, d, m >> 3, m & 7, rows[m]);
}

FOVEA_INLINE f32 tf32(u32 bits) { return std::bit_cast<f32>(bits & ~0x1fffu); }  // the hardware ignores the low 13 bits

template <int t>
FOVEA_INLINE vec8 tf32_column(const u32* b) {
  return std::bit_cast<vec8>(column<t>(b) & ~0x1fffu);
}

// m16n8k(4*kBlocks) of tf32 inputs.
template <int kBlocks>
void mma_tf32(Warp& w, const Instr& i, u32 mask) {
  if (!whole_warp(w, i, mask)) return;
  const Operand *d = i.ops, *a = d + 4, *b = a + 2 * kBlocks, *c = b + kBlocks;
  vec8 columns[kBlocks][4];
  const u32* a_regs[2 * kBlocks];
  for (int r = 0; r < 2 * kBlocks; ++r) a_regs[r] = w.src<u32>(a[r]);
  for (int kb = 0; kb < kBlocks; ++kb) {
    const u32* s = w.src<u32>(b[kb]);
    columns[kb][0] = tf32_column<0>(s);
    columns[kb][1] = tf32_column<1>(s);
    columns[kb][2] = tf32_column<2>(s);
    columns[kb][3] = tf32_column<3>(s);
  }
  vec8 rows[16];
  for (int m = 0; m < 16; ++m) {
    const int h = m >> 3, g = m & 7;
    vec8 s = load_acc<f32>(w, c, h, g);
    for (int kb = 0; kb < kBlocks; ++kb) {
      for (int t = 0; t < 4; ++t) s = s + tf32(a_regs[h + 2 * kb][4 * g + t]) * columns[kb][t];
    }
    rows[m] = s;
  }
  for (int m = 0; m < 16; ++m) store_acc<f32>(w, d, m >> 3, m & 7, rows[m]);
}

// m16n8k(16*kBlocks) of 8-bit integers into s32.
template <class A, class B, int kBlocks>
void mma_int8(Warp& w, const Instr& i, u32 mask) {
  if (!whole_warp(w, i, mask)) return;
  const Operand *d = i.ops, *a = d + 4, *b = a + 2 * kBlocks, *c = b + kBlocks;
  u32 out[4][kLanes];
  for (int r = 0; r < 4; ++r) {
    const u32* acc = w.src<u32>(c[r]);
    for (int l = 0; l < kLanes; ++l) {
      const int g = l >> 2, n = 2 * (l & 3) + (r & 1);
      u32 sum = acc[l];
      for (int kb = 0; kb < kBlocks; ++kb) {
        const u32 *x = w.src<u32>(a[(r >> 1) + 2 * kb]) + 4 * g, *y = w.src<u32>(b[kb]) + 4 * n;
        for (int k = 0; k < 16; ++k) {
          sum += static_cast<u32>(static_cast<s32>(static_cast<A>(x[k / 4] >> (8 * (k % 4)))) *
                                  static_cast<s32>(static_cast<B>(y[k / 4] >> (8 * (k % 4)))));
        }
      }
      out[r][l] = sum;
    }
  }
  for (int r = 0; r < 4; ++r) std::memcpy(w.dst<u32>(d[r]), out[r], sizeof(out[r]));
}

FOVEA_INLINE void row_addresses(Warp& w, const Instr& i, Operand base, u64* address) {
  addresses_of(w, i, base, address);
  for (int l = 0; l < kLanes; ++l) {
    if (i.space == Space::Generic && address[l] - kSharedWindow < kWindowBytes) address[l] -= kSharedWindow;
  }
}

FOVEA_INLINE void count_rows(Warp& w, const u64* address, int matrices, MemoryCounters ProfileCounters::*to) {
  if (!w.block->launch->options.profile) return;
  u32 offset[kLanes];
  for (int l = 0; l < kLanes; ++l) offset[l] = static_cast<u32>(address[l]);
  w.block->profile.count_shared(w.block->profile.*to, matrices == 4 ? kAllLanes : (1u << (8 * matrices)) - 1, offset, 16);
}

// ops: d (vector of 1, 2, 4), address of row l in lane l. mode bit 4: transposed.
constexpr u8 kTransposed = 16;

void load_matrix(Warp& w, const Instr& i, u32 mask) {
  if (!whole_warp(w, i, mask)) return;
  u64 address[kLanes];
  const int matrices = i.vector;
  row_addresses(w, i, i.ops[matrices], address);
  count_rows(w, address, matrices, &ProfileCounters::shared_loads);
  SharedMemory& s = w.block->shared;
  for (int m = 0; m < matrices; ++m) {
    u32* d = w.dst<u32>(i.ops[m]);
    alignas(16) u16 rows[8][8];
    for (int r = 0; r < 8; ++r) {
      const u64 at = address[8 * m + r];
      if ((at & 15) || at + 16 > s.bytes() || s.read(w.shared, static_cast<u32>(at), 16) != SharedMemory::Conflict::None) {
        raise_access(w, i, 8 * m + r, Space::Shared, at, 16, false);
      }
      std::memcpy(rows[r], s.data() + at, 16);
    }
    if (!(i.mode & kTransposed)) {
      std::memcpy(d, rows, sizeof(rows));
    } else {
      for (int l = 0; l < kLanes; ++l) d[l] = rows[2 * (l & 3)][l >> 2] | u32{rows[2 * (l & 3) + 1][l >> 2]} << 16;
    }
  }
}

// ops: address, sources
void store_matrix(Warp& w, const Instr& i, u32 mask) {
  if (!whole_warp(w, i, mask)) return;
  u64 address[kLanes];
  const int matrices = i.vector;
  row_addresses(w, i, i.ops[0], address);
  count_rows(w, address, matrices, &ProfileCounters::shared_stores);
  SharedMemory& s = w.block->shared;
  for (int m = 0; m < matrices; ++m) {
    const u32* v = w.src<u32>(i.ops[1 + m]);
    alignas(16) u16 rows[8][8];
    for (int l = 0; l < kLanes; ++l) {
      const int a = l >> 2, b = 2 * (l & 3);
      (i.mode & kTransposed ? rows[b][a] : rows[a][b]) = static_cast<u16>(v[l]);
      (i.mode & kTransposed ? rows[b + 1][a] : rows[a][b + 1]) = static_cast<u16>(v[l] >> 16);
    }
    for (int r = 0; r < 8; ++r) {
      const u64 at = address[8 * m + r];
      if ((at & 15) || at + 16 > s.bytes() || s.write(w.shared, static_cast<u32>(at), 16) != SharedMemory::Conflict::None) {
        raise_access(w, i, 8 * m + r, Space::Shared, at, 16, true);
      }
      std::memcpy(s.data() + at, rows[r], 16);
    }
  }
}

}  // namespace

void register_matrix(Registry& r) {
  const auto mma = [&](const char* key, Handler fn) { r.add(Key("mma.", key).c_str(), {fn, kCls, 0, 0, {}}); };
  mma("m16n8k16.f32.bf16.bf16.f32", &mma_half<bf16, 2, f32>);
  mma("m16n8k8.f32.bf16.bf16.f32", &mma_half<bf16, 1, f32>);
  mma("m16n8k16.f32.f16.f16.f32", &mma_half<f16, 2, f32>);
  mma("m16n8k8.f32.f16.f16.f32", &mma_half<f16, 1, f32>);
  mma("m16n8k16.f16.f16.f16.f16", &mma_half<f16, 2, f16>);
  mma("m16n8k8.f16.f16.f16.f16", &mma_half<f16, 1, f16>);
  mma("m16n8k8.f32.tf32.tf32.f32", &mma_tf32<2>);
  mma("m16n8k4.f32.tf32.tf32.f32", &mma_tf32<1>);
  mma("m16n8k32.s32.s8.s8.s32", &mma_int8<s8, s8, 2>);
  mma("m16n8k32.s32.u8.s8.s32", &mma_int8<u8, s8, 2>);
  mma("m16n8k32.s32.s8.u8.s32", &mma_int8<s8, u8, 2>);
  mma("m16n8k32.s32.u8.u8.s32", &mma_int8<u8, u8, 2>);
  mma("m16n8k16.s32.s8.s8.s32", &mma_int8<s8, s8, 1>);
  mma("m16n8k16.s32.u8.u8.s32", &mma_int8<u8, u8, 1>);
  r.add("ldmatrix", {&load_matrix, kCls, 0, 0, {}});
  r.add("stmatrix", {&store_matrix, kCls, 0, 0, {}});
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
