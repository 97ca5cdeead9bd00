// cp.async and its waits.
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

}  // namespace

void register_async(Registry& r) {
  constexpr InstrClass kCls = InstrClass::Async;
  r.add("cp.async", {&issue, kCls, 0, 0, {}});
  r.add("cp.async.commit_group", {&commit, kCls, 0, 0, {}});
  r.add("cp.async.wait_group", {&wait, kCls, 0, 0, {}});
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
