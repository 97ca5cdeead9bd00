// Branches, exits, traps, block barriers.
#include "map_lanes.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

void branch(Warp& w, const Instr& i, u32 mask) { w.jump(i.target, mask); }

void exit_thread(Warp& w, const Instr&, u32 mask) { w.exit_lanes(mask); }

void trap(Warp& w, const Instr& i, u32 mask) { raise(FaultKind::Trap, w, i, __builtin_ctz(mask), "the kernel stopped itself"); }

void nothing(Warp&, const Instr&, u32) {}

// brx.idx: lanes go to the entries of a table, one group of equal indices after the other.
void branch_indexed(Warp& w, const Instr& i, u32 mask) {
  const u32* index = w.src<u32>(i.ops[0]);
  const std::vector<u32>& table = w.program->jump_tables[i.target];
  u32 left = mask;
  while (left) {
    const u32 lane = static_cast<u32>(__builtin_ctz(left));
    if (index[lane] >= table.size())
      raise(FaultKind::OutOfBounds, w, i, static_cast<int>(lane), "branch index %u of %zu", index[lane], table.size());
    u32 same = 0;
    for (int l = 0; l < kLanes; ++l) same |= static_cast<u32>((left >> l & 1) && index[l] == index[lane]) << l;
    left &= ~same;
    if (left == 0 && (mask & ~same) == 0 && same == w.active) return w.jump(table[index[lane]], same);
    w.others.push_back({table[index[lane]], same, 0, false});
  }
  w.active &= ~mask;
  w.reschedule();
}

// mode 0: bar.sync, 1: bar.arrive. ops: id, and the number of threads if given.
void barrier(Warp& w, const Instr& i, u32 mask) {
  if (!w.gather(i, w.live)) return;
  if (mask != w.live)
    raise(FaultKind::Barrier, w, i, __builtin_ctz(w.live & ~mask), "divergent: lanes %08x skip the barrier that lanes %08x come to",
          w.live & ~mask, mask);
  const u32 lane = static_cast<u32>(__builtin_ctz(mask));
  const u32 id = w.src<u32>(i.ops[0])[lane], threads = i.count > 1 ? w.src<u32>(i.ops[1])[lane] : 0;
  if (id >= 16) raise(FaultKind::Barrier, w, i, -1, "barrier %u; there are 16", id);
  w.block->arrive(w, i, id, threads, i.mode == 0);
}

// bar.red: runs twice, before and after the barrier. mode 0: popc, 1: and, 2: or. ops: d, id, [threads,] p
void barrier_reduce(Warp& w, const Instr& i, u32 mask) {
  if (!w.gather(i, w.live)) return;
  if (mask != w.live)
    raise(FaultKind::Barrier, w, i, __builtin_ctz(w.live & ~mask), "divergent: lanes %08x skip the barrier", w.live & ~mask);
  const u32 lane = static_cast<u32>(__builtin_ctz(mask));
  const u32 id = w.src<u32>(i.ops[1])[lane] & 15;
  Barrier& b = w.block->barriers[id];
  if (w.reducing) {
    w.reducing = false;
    if (i.mode != 0) return w.set_pred(i.ops[0], (i.mode == 1 ? b.all : b.any) ? kAllLanes : 0, mask);
    for (int l = 0; l < kLanes; ++l) w.dst<u32>(i.ops[0])[l] = b.votes;
    return;
  }
  const u32 votes = w.pred(i.ops[i.count - 1]) & mask;
  if (b.members == 0) b.votes = 0, b.all = 1, b.any = 0;
  b.votes += static_cast<u32>(__builtin_popcount(votes));
  b.all &= votes == mask;
  b.any |= votes != 0;
  w.reducing = true;
  w.pc -= 1;
  w.block->arrive(w, i, id, i.count > 3 ? w.src<u32>(i.ops[2])[lane] : 0, true);
}

void warp_barrier(Warp& w, const Instr& i, u32 mask) {
  const u32 members = w.src<u32>(i.ops[0])[__builtin_ctz(mask)];
  if (mask & ~members) raise(FaultKind::Sync, w, i, __builtin_ctz(mask & ~members), "this lane is not in the member mask %08x", members);
  w.gather(i, members, true);
}

// __assertfail(message, file, line, function, char size): the arguments are pointers to text in global memory.
void assert_fail(Warp& w, const Instr& i, u32 mask) {
  const int lane = __builtin_ctz(mask);
  const u64 text = w.src<u64>(i.ops[0])[lane], file = w.src<u64>(i.ops[1])[lane];
  const auto string = [&](u64 at) { return w.block->launch->memory->readable(at, 1) ? reinterpret_cast<const char*>(at) : "?"; };
  raise(FaultKind::Assert, w, i, lane, "`%.200s` is false, %.200s:%u", string(text), string(file), w.src<u32>(i.ops[2])[lane]);
}

}  // namespace

void register_control(Registry& r) {
  constexpr InstrClass kCls = InstrClass::Control;
  r.add("bra", {&branch, kCls, 0, 0, {}});
  r.add("brx", {&branch_indexed, kCls, 1, 0, {Kind::B32}});
  r.add("exit", {&exit_thread, kCls, 0, 0, {}});
  r.add("trap", {&trap, kCls, 0, 0, {}});
  r.add("nop", {&nothing, kCls, 0, 0, {}});
  r.add("assert", {&assert_fail, kCls, 3, 0, {Kind::B64, Kind::B64, Kind::B32}});
  r.add("barrier", {&barrier, InstrClass::Barrier, 1, 0, {Kind::B32}});
  r.add("barrier.count", {&barrier, InstrClass::Barrier, 2, 0, {Kind::B32, Kind::B32}});
  r.add("barrier.red.pred", {&barrier_reduce, InstrClass::Barrier, 3, 1, {Kind::Pred, Kind::B32, Kind::Pred}});
  r.add("barrier.red.pred.count", {&barrier_reduce, InstrClass::Barrier, 4, 1, {Kind::Pred, Kind::B32, Kind::B32, Kind::Pred}});
  r.add("barrier.red.popc", {&barrier_reduce, InstrClass::Barrier, 3, 1, {Kind::B32, Kind::B32, Kind::Pred}});
  r.add("barrier.red.popc.count", {&barrier_reduce, InstrClass::Barrier, 4, 1, {Kind::B32, Kind::B32, Kind::B32, Kind::Pred}});
  r.add("bar.warp", {&warp_barrier, InstrClass::Barrier, 1, 0, {Kind::B32}});
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
