// Instructions in which lanes see each other: shfl, vote, match, redux, elect.
#include "map_lanes.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

constexpr InstrClass kCls = InstrClass::Collective;

// True when all live lanes of the member mask stand here and take part.
FOVEA_INLINE bool joined(Warp& w, const Instr& i, u32 mask, Operand member_operand) {
  const u32* m = w.src<u32>(member_operand);
  const u32 members = m[__builtin_ctz(mask)];
  if (mask & ~members) raise(FaultKind::Sync, w, i, __builtin_ctz(mask & ~members), "this lane is not in the member mask %08x", members);
  if (members == kAllLanes && w.active == w.live && mask == w.live) return true;
  if (!w.gather(i, members)) return false;
  const u32 off = members & w.live & ~mask;
  if (off) raise(FaultKind::Sync, w, i, __builtin_ctz(off), "this lane is in the member mask %08x, but its predicate is false", members);
  return true;
}

enum ShuffleMode : u8 { kUp, kDown, kButterfly, kIndex };

// ops: d, p, a, b, c, members
void shuffle(Warp& w, const Instr& i, u32 mask) {
  if (!joined(w, i, mask, i.ops[5])) return;
  const u32 *a = w.src<u32>(i.ops[2]), *b = w.src<u32>(i.ops[3]), *c = w.src<u32>(i.ops[4]);
  u32* d = w.dst<u32>(i.ops[0]);
  u32 values[kLanes], inside = 0;
  std::memcpy(values, a, sizeof(values));
  for (u32 lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const u32 segment = c[lane] >> 8 & 31, clamp = c[lane] & 31, by = b[lane] & 31;
    const u32 last = (lane & segment) | (clamp & ~segment), first = lane & segment;
    s32 from;
    bool valid;
    switch (i.mode) {
      case kUp: from = static_cast<s32>(lane) - static_cast<s32>(by), valid = from >= static_cast<s32>(last); break;
      case kDown: from = static_cast<s32>(lane + by), valid = from <= static_cast<s32>(last); break;
      case kButterfly: from = static_cast<s32>(lane ^ by), valid = from <= static_cast<s32>(last); break;
      default: from = static_cast<s32>(first | (by & ~segment)), valid = from <= static_cast<s32>(last);
    }
    if (!valid) from = static_cast<s32>(lane);
    if (!(mask >> from & 1)) raise(FaultKind::Sync, w, i, static_cast<int>(lane), "shuffle from lane %d, which is not taking part", from);
    d[lane] = values[from];
    inside |= static_cast<u32>(valid) << lane;
  }
  w.set_pred(i.ops[1], inside, mask);
}

// mode 0: all, 1: any, 2: uni; ops: p, a, members
void vote(Warp& w, const Instr& i, u32 mask) {
  if (!joined(w, i, mask, i.ops[2])) return;
  const u32 votes = w.pred(i.ops[1]) & mask;
  const bool all = votes == mask, any = votes != 0;
  w.set_pred(i.ops[0], (i.mode == 0 ? all : i.mode == 1 ? any : all || !any) ? kAllLanes : 0, mask);
}

void ballot(Warp& w, const Instr& i, u32 mask) {
  if (!joined(w, i, mask, i.ops[2])) return;
  const u32 votes = w.pred(i.ops[1]) & mask;
  u32* d = w.dst<u32>(i.ops[0]);
  for (int l = 0; l < kLanes; ++l) d[l] = (mask >> l & 1) ? votes : d[l];
}

template <class T>
void match_any(Warp& w, const Instr& i, u32 mask) {
  if (!joined(w, i, mask, i.ops[2])) return;
  storage_t<T> a[kLanes];
  std::memcpy(a, w.src<T>(i.ops[1]), sizeof(a));
  u32* d = w.dst<u32>(i.ops[0]);
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    u32 same = 0;
    for (int k = 0; k < kLanes; ++k) same |= static_cast<u32>((mask >> k & 1) && a[k] == a[l]) << k;
    d[l] = same;
  }
}

// ops: d, p, a, members
template <class T>
void match_all(Warp& w, const Instr& i, u32 mask) {
  if (!joined(w, i, mask, i.ops[3])) return;
  const storage_t<T>* a = w.src<T>(i.ops[2]);
  const int first = __builtin_ctz(mask);
  bool equal = true;
  for (int l = 0; l < kLanes; ++l) equal &= !(mask >> l & 1) || a[l] == a[first];
  u32* d = w.dst<u32>(i.ops[0]);
  for (int l = 0; l < kLanes; ++l) d[l] = (mask >> l & 1) ? (equal ? mask : 0) : d[l];
  w.set_pred(i.ops[1], equal ? kAllLanes : 0, mask);
}

template <class T, class F>
void redux(Warp& w, const Instr& i, u32 mask) {
  if (!joined(w, i, mask, i.ops[2])) return;
  const u32* a = w.src<u32>(i.ops[1]);
  T r = static_cast<T>(a[__builtin_ctz(mask)]);
  for (u32 left = mask & (mask - 1); left; left &= left - 1) r = F{}(r, static_cast<T>(a[__builtin_ctz(left)]));
  u32* d = w.dst<u32>(i.ops[0]);
  for (int l = 0; l < kLanes; ++l) d[l] = (mask >> l & 1) ? static_cast<u32>(r) : d[l];
}

template <class T, class F>
void add_redux(Registry& r, const char* key, F) {
  constexpr Kind B = Kind::B32;
  r.add(key, {&redux<T, F>, kCls, 3, 1, {B, B, B}});
}

// ops: d, p, members: one lane is chosen, its number goes to all.
void elect(Warp& w, const Instr& i, u32 mask) {
  if (!joined(w, i, mask, i.ops[2])) return;
  const u32 leader = static_cast<u32>(__builtin_ctz(mask));
  u32* d = w.dst<u32>(i.ops[0]);
  for (int l = 0; l < kLanes; ++l) d[l] = (mask >> l & 1) ? leader : d[l];
  w.set_pred(i.ops[1], 1u << leader, mask);
}

}  // namespace

void register_collective(Registry& r) {
  constexpr Kind B = Kind::B32, P = Kind::Pred;
  r.add("shfl", {&shuffle, kCls, 6, 2, {B, P, B, B, B, B}});
  r.add("vote", {&vote, kCls, 3, 1, {P, P, B}});
  r.add("vote.ballot", {&ballot, kCls, 3, 1, {B, P, B}});
  r.add("match.any.b32", {&match_any<u32>, kCls, 3, 1, {B, B, B}});
  r.add("match.any.b64", {&match_any<u64>, kCls, 3, 1, {B, Kind::B64, B}});
  r.add("match.all.b32", {&match_all<u32>, kCls, 4, 2, {B, P, B, B}});
  r.add("match.all.b64", {&match_all<u64>, kCls, 4, 2, {B, P, Kind::B64, B}});
  r.add("elect", {&elect, kCls, 3, 2, {B, P, B}});
  add_redux<u32>(r, "redux.add.u32", [](u32 a, u32 b) { return a + b; });
  add_redux<u32>(r, "redux.add.s32", [](u32 a, u32 b) { return a + b; });
  add_redux<u32>(r, "redux.min.u32", [](u32 a, u32 b) { return a < b ? a : b; });
  add_redux<u32>(r, "redux.max.u32", [](u32 a, u32 b) { return a > b ? a : b; });
  add_redux<s32>(r, "redux.min.s32", [](s32 a, s32 b) { return a < b ? a : b; });
  add_redux<s32>(r, "redux.max.s32", [](s32 a, s32 b) { return a > b ? a : b; });
  add_redux<u32>(r, "redux.and.b32", [](u32 a, u32 b) { return a & b; });
  add_redux<u32>(r, "redux.or.b32", [](u32 a, u32 b) { return a | b; });
  add_redux<u32>(r, "redux.xor.b32", [](u32 a, u32 b) { return a ^ b; });
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
