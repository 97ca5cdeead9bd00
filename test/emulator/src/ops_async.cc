// cp.async and its waits, and mbarrier objects.
//
// A copy takes its target from everybody until the thread that issued it waits for it. Its bytes are moved as late as the program allows,
// at the wait, or at once, as the delivery mode says; both are legal, so a correct kernel can't tell.
#include "access.h"
#include "map_lanes.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

void deliver(Warp& w, const AsyncCopy& c) {
  u8* to = w.block->shared.data() + c.target;
  std::memcpy(to, reinterpret_cast<const void*>(c.source), c.source_bytes);
  std::memset(to + c.source_bytes, 0, static_cast<size_t>(c.bytes - c.source_bytes));
}

// ops: shared address, global address [, source bytes]; bytes: of the target; target: 1 when the third operand is an ignore-source
// predicate
void issue(Warp& w, const Instr& i, u32 mask) {
  const Launch& launch = *w.block->launch;
  SharedMemory& s = w.block->shared;
  const u64* wide = w.src<u64>(i.ops[0]);
  const u32* narrow = w.src<u32>(i.ops[0]);
  const u64* source = w.src<u64>(i.ops[1]);
  const u32* given = i.count > 2 && i.target == 0 ? w.src<u32>(i.ops[2]) : nullptr;
  const u32 ignored = i.target == 1 ? w.pred(i.ops[2]) : 0;
  const u32 bytes = i.bytes;
  u32 offsets[kLanes];
  u64 sources[kLanes];
  u32 reading = 0;
  for (u32 left = mask; left; left &= left - 1) {
    const int l = __builtin_ctz(left);
    u64 to = (i.mode & kWideAddress ? wide[l] : narrow[l]) + static_cast<u64>(i.imm >> 32);
    if (to - kSharedWindow < kWindowBytes) to -= kSharedWindow;
    const u64 from = source[l] + static_cast<u64>(static_cast<s64>(static_cast<s32>(i.imm)));
    const u32 take = ignored >> l & 1 ? 0 : given ? given[l] : bytes;
    if (take > bytes) raise(FaultKind::AsyncCopy, w, i, l, "a source of %u bytes for a copy of %u", take, bytes);
    if (take && (from & (bytes - 1))) raise_access(w, i, l, Space::Global, from, bytes, false);
    if (take && !launch.memory->readable(from, take))
      raise_access(w, i, l, Space::Global, from, take > 8 ? 16 : take > 4 ? 8 : take, false);
    if ((to & (bytes - 1)) || to + bytes > s.bytes() ||
        s.begin_async(w.shared, static_cast<u32>(to), bytes) != SharedMemory::Conflict::None) {
      raise_access(w, i, l, Space::Shared, to, bytes, true);
    }
    w.copies.push_back({from, static_cast<u32>(to), w.copy_group[l], static_cast<u8>(l), static_cast<u8>(bytes), static_cast<u8>(take)});
    if (launch.options.async_early) deliver(w, w.copies.back());
    offsets[l] = static_cast<u32>(to);
    sources[l] = from;
    reading |= static_cast<u32>(take != 0) << l;
  }
  if (launch.options.profile) {
    w.block->profile.count_shared(w.block->profile.shared_stores, mask, offsets, bytes);
    if (reading) w.block->profile.count_global(w.block->profile.global_loads, reading, sources, bytes);
  }
}

void commit(Warp& w, const Instr&, u32 mask) {
  for (int l = 0; l < kLanes; ++l) w.copy_group[l] += mask >> l & 1;
}

// Lets all but the last imm committed groups of each lane land; mode 1: everything, committed or not.
void wait(Warp& w, const Instr& i, u32 mask) {
  size_t kept = 0;
  for (const AsyncCopy& c : w.copies) {
    const bool mine = mask >> c.lane & 1;
    if (mine && (i.mode == 1 || c.group + static_cast<u64>(i.imm) < w.copy_group[c.lane])) {
      if (!w.block->launch->options.async_early) deliver(w, c);
      w.block->shared.end_async(w.shared, c.target, c.bytes);
    } else {
      w.copies[kept++] = c;
    }
  }
  w.copies.erase(w.copies.begin() + static_cast<ptrdiff_t>(kept), w.copies.end());
}

// An mbarrier is 64 bits of shared memory: arrivals still to come, arrivals of a phase, the phase's parity. Arriving hands on what the warp
// did so far, a successful wait takes over what all who arrived did: `mbarrier_clocks` holds both, for the running and for the last phase.
struct MbarrierState {
  u32 pending : 20 = 0;
  u32 : 12;
  u32 expected : 20 = 0;
  u32 phase : 1 = 0;
  u32 valid : 11 = 0;
};
static_assert(sizeof(MbarrierState) == 8);
constexpr u32 kValidMark = 0x5a5;

FOVEA_INLINE u32 mbarrier_address(Warp& w, const Instr& i, Operand base, int lane) {
  u64 at = (i.mode & kWideAddress ? w.src<u64>(base)[lane] : w.src<u32>(base)[lane]) + static_cast<u64>(i.imm);
  if (at - kSharedWindow < kWindowBytes) at -= kSharedWindow;
  if ((at & 7) || at + 8 > w.block->shared.bytes()) raise_access(w, i, lane, Space::Shared, at, 8, true);
  return static_cast<u32>(at);
}

MbarrierState open_mbarrier(Warp& w, const Instr& i, int lane, u32 at) {
  SharedMemory& s = w.block->shared;
  if (s.atomic(w.shared, at, 8) != SharedMemory::Conflict::None) raise_access(w, i, lane, Space::Shared, at, 8, false);
  MbarrierState b;
  std::memcpy(&b, s.data() + at, 8);
  if (b.valid != kValidMark) raise(FaultKind::Barrier, w, i, lane, "no mbarrier was initialised at shared address %u", at);
  return b;
}

// ops: address, count; mode bit 4: inval
void init_mbarrier(Warp& w, const Instr& i, u32 mask) {
  SharedMemory& s = w.block->shared;
  for (u32 left = mask; left; left &= left - 1) {
    const int l = __builtin_ctz(left);
    const u32 at = mbarrier_address(w, i, i.ops[0], l);
    if (s.write(w.shared, at, 8) != SharedMemory::Conflict::None) raise_access(w, i, l, Space::Shared, at, 8, true);
    MbarrierState b;
    if (!(i.mode & 16)) {
      b.pending = b.expected = w.src<u32>(i.ops[1])[l];
      b.valid = kValidMark;
      w.block->mbarrier_clocks[at] = w.block->mbarrier_clocks[at + 1] = Clock{};
    }
    std::memcpy(s.data() + at, &b, 8);
  }
}

void join_clocks(Clock& to, const Clock& from) {
  for (int k = 0; k < kMaxWarps; ++k) to[k] = to[k] > from[k] ? to[k] : from[k];
}

// ops: state, address, count
void arrive_mbarrier(Warp& w, const Instr& i, u32 mask) {
  SharedMemory& s = w.block->shared;
  for (u32 left = mask; left; left &= left - 1) {
    const int l = __builtin_ctz(left);
    const u32 at = mbarrier_address(w, i, i.ops[1], l), count = w.src<u32>(i.ops[2])[l];
    MbarrierState b = open_mbarrier(w, i, l, at);
    if (count > b.pending)
      raise(FaultKind::Barrier, w, i, l, "%u arrivals, but the phase waits for %u more", count, static_cast<u32>(b.pending));
    w.dst<u64>(i.ops[0])[l] = b.phase;
    Clock& running = w.block->mbarrier_clocks[at];
    join_clocks(running, w.shared.clock);
    running[w.index] = s.time();
    b.pending -= count;
    if (b.pending == 0) {
      b.pending = b.expected;
      b.phase ^= 1;
      w.block->mbarrier_clocks[at + 1] = running;
    }
    std::memcpy(s.data() + at, &b, 8);
  }
  s.advance_time();
  for (Warp& other : w.block->warps) other.shared.forget_steps();
}

// ops: predicate, address, state or parity; mode bit 4: parity. A wait that fails lets other warps run.
void wait_mbarrier(Warp& w, const Instr& i, u32 mask) {
  u32 done = 0;
  for (u32 left = mask; left; left &= left - 1) {
    const int l = __builtin_ctz(left);
    const u32 at = mbarrier_address(w, i, i.ops[1], l);
    const u32 phase = i.mode & 16 ? w.src<u32>(i.ops[2])[l] & 1 : static_cast<u32>(w.src<u64>(i.ops[2])[l]) & 1;
    const MbarrierState b = open_mbarrier(w, i, l, at);
    if (b.phase == phase) continue;
    done |= 1u << l;
    join_clocks(w.shared.clock, w.block->mbarrier_clocks[at + 1]);
  }
  w.set_pred(i.ops[0], done, mask);
  if (done == mask) return;
  w.status = WarpStatus::Yield;
  w.limit = 0;
}

}  // namespace

void register_async(Registry& r) {
  constexpr InstrClass kCls = InstrClass::Async;
  r.add("cp.async", {&issue, kCls, 0, 0, {}});
  r.add("cp.async.commit_group", {&commit, kCls, 0, 0, {}});
  r.add("cp.async.wait_group", {&wait, kCls, 0, 0, {}});
  r.add("mbarrier.init", {&init_mbarrier, InstrClass::Barrier, 2, 0, {Kind::B64, Kind::B32}});
  r.add("mbarrier.arrive", {&arrive_mbarrier, InstrClass::Barrier, 3, 1, {Kind::B64, Kind::B64, Kind::B32}});
  r.add("mbarrier.wait", {&wait_mbarrier, InstrClass::Barrier, 3, 1, {Kind::Pred, Kind::B64, Kind::B64}});
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
