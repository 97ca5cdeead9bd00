// mov, packing and unpacking of register vectors, address space conversions.
#include <ctime>

#include "map_lanes.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

constexpr InstrClass kCls = InstrClass::Move;

template <class T>
void copy(Warp& w, const Instr& i, u32 mask) {
  map_loop<decltype([](T v) { return v; }), T, T>(mask, w.dst<T>(i.ops[0]), w.src<T>(i.ops[1]));
}

// Parts of 16 bits make a register of 32, parts of 16 or 32 one of 64: mov.b64 d, {a, b}
template <class Part, class Whole, int kParts>
void pack_vector(Warp& w, const Instr& i, u32 mask) {
  storage_t<Whole>* d = w.dst<Whole>(i.ops[0]);
  const u32* s[kParts];
  for (int p = 0; p < kParts; ++p) s[p] = w.src<u32>(i.ops[1 + p]);
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    Whole v = 0;
    for (int p = 0; p < kParts; ++p) v |= static_cast<Whole>(static_cast<Part>(s[p][l])) << (8 * sizeof(Part) * p);
    d[l] = v;
  }
}

template <class Part, class Whole, int kParts>
void unpack_vector(Warp& w, const Instr& i, u32 mask) {
  const storage_t<Whole>* s = w.src<Whole>(i.ops[kParts]);
  u32* d[kParts];
  for (int p = 0; p < kParts; ++p) d[p] = w.dst<u32>(i.ops[p]);
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    const Whole v = s[l];
    for (int p = 0; p < kParts; ++p) d[p][l] = static_cast<Part>(v >> (8 * sizeof(Part) * p));
  }
}

// mode 0: to the generic window (add), 1: from it (subtract); imm: the window.
void convert_address(Warp& w, const Instr& i, u32 mask) {
  u64* d = w.dst<u64>(i.ops[0]);
  const u64* s = w.src<u64>(i.ops[1]);
  const u64 window = static_cast<u64>(i.mode ? -i.imm : i.imm);
  for (int l = 0; l < kLanes; ++l) {
    if (mask >> l & 1) d[l] = s[l] + window;
  }
}

void is_space(Warp& w, const Instr& i, u32 mask) {
  const u64* a = w.src<u64>(i.ops[1]);
  u32 r = 0;
  for (int l = 0; l < kLanes; ++l) {
    const bool window = a[l] - static_cast<u64>(i.imm) < kWindowBytes;
    const bool global = a[l] - kSharedWindow >= kParamWindow + kWindowBytes - kSharedWindow;
    r |= static_cast<u32>(i.space == Space::Global ? global : window) << l;
  }
  w.set_pred(i.ops[0], r, mask);
}

void active_mask(Warp& w, const Instr& i, u32 mask) {
  u32* d = w.dst<u32>(i.ops[0]);
  for (int l = 0; l < kLanes; ++l) {
    if (mask >> l & 1) d[l] = mask;
  }
}

FOVEA_INLINE u64 read_host_clock() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000u + static_cast<u64>(t.tv_nsec);
}

// %clock, %clock64, %globaltimer: nanoseconds of the host.
template <class T>
void read_clock(Warp& w, const Instr& i, u32 mask) {
  storage_t<T>* d = w.dst<T>(i.ops[0]);
  const u64 now = read_host_clock();
  for (int l = 0; l < kLanes; ++l) {
    if (mask >> l & 1) d[l] = static_cast<storage_t<T>>(now);
  }
}

}  // namespace

void register_move(Registry& r) {
  constexpr Kind B = Kind::B32, L = Kind::B64;
  r.add("mov.4", {&copy<u32>, kCls, 2, 1, {B, B}});
  r.add("mov.8", {&copy<u64>, kCls, 2, 1, {L, L}});
  r.add("mov.f4", {&copy<f32>, kCls, 2, 1, {Kind::F32, Kind::F32}});
  r.add("mov.f8", {&copy<f64>, kCls, 2, 1, {Kind::F64, Kind::F64}});
  r.add("pack.2x16", {&pack_vector<u16, u32, 2>, kCls, 3, 1, {B, B, B}});
  r.add("pack.4x8", {&pack_vector<u8, u32, 4>, kCls, 5, 1, {B, B, B, B, B}});
  r.add("pack.2x32", {&pack_vector<u32, u64, 2>, kCls, 3, 1, {L, B, B}});
  r.add("pack.4x16", {&pack_vector<u16, u64, 4>, kCls, 5, 1, {L, B, B, B, B}});
  r.add("pack.2x8", {&pack_vector<u8, u16, 2>, kCls, 3, 1, {B, B, B}});
  r.add("unpack.2x16", {&unpack_vector<u16, u32, 2>, kCls, 3, 2, {B, B, B}});
  r.add("unpack.4x8", {&unpack_vector<u8, u32, 4>, kCls, 5, 4, {B, B, B, B, B}});
  r.add("unpack.2x32", {&unpack_vector<u32, u64, 2>, kCls, 3, 2, {B, B, L}});
  r.add("unpack.4x16", {&unpack_vector<u16, u64, 4>, kCls, 5, 4, {B, B, B, B, L}});
  r.add("unpack.2x8", {&unpack_vector<u8, u16, 2>, kCls, 3, 2, {B, B, B}});
  r.add("cvta", {&convert_address, kCls, 2, 1, {L, L}});
  r.add("isspacep", {&is_space, InstrClass::Compare, 2, 1, {Kind::Pred, L}});
  r.add("activemask", {&active_mask, InstrClass::Collective, 1, 1, {B}});
  r.add("clock.4", {&read_clock<u32>, kCls, 1, 1, {B}});
  r.add("clock.8", {&read_clock<u64>, kCls, 1, 1, {L}});
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
