// Control flow of a warp: fragments, reconvergence, exits. See machine.h.
#include <algorithm>

#include "machine.h"

namespace fovea::emulator {

void Warp::start(Block& owner, int warp_index) {
  block = &owner;
  program = owner.launch->program;
  index = warp_index;
  const u32 first = static_cast<u32>(warp_index) * kLanes;
  const u32 count = std::min<u32>(kLanes, owner.threads - first);
  lanes = live = active = count == kLanes ? kAllLanes : (1u << count) - 1;
  pc = 0;
  limit = kAllLanes;
  status = WarpStatus::Ready;
  reducing = false;
  others.clear();
  branches = 0;
  quantum = 0;
  copies.clear();
  copy_group.fill(0);
  shared = SharedView{};
  shared.warp = warp_index;
  std::fill(shared.clock.begin() + static_cast<ptrdiff_t>(owner.warps.size()), shared.clock.end(), ~0u);  // warps that don't exist
  shared.checked_write = ~0u;
  shared.forget_steps();
  preds[kTruePredicate] = kAllLanes;
  std::fill_n(valid, program->tracked_names.size(), 0u);
  if (program->local_bytes) std::fill_n(local_written, size_t{program->local_bytes} * kLanes, u8{0});

  const Launch& l = *owner.launch;
  for (const SpecialSlot& s : program->specials) {
    u32* d = dst<u32>(s.operand);
    for (u32 lane = 0; lane < kLanes; ++lane) {
      const u32 thread = first + lane;
      const auto value = [&]() -> u32 {
        switch (s.special) {
          case Special::TidX: return thread % l.block[0];
          case Special::TidY: return thread / l.block[0] % l.block[1];
          case Special::TidZ: return thread / l.block[0] / l.block[1];
          case Special::NtidX:
          case Special::NtidY:
          case Special::NtidZ: return l.block[static_cast<int>(s.special) - static_cast<int>(Special::NtidX)];
          case Special::CtaidX:
          case Special::CtaidY:
          case Special::CtaidZ: return owner.ctaid[static_cast<int>(s.special) - static_cast<int>(Special::CtaidX)];
          case Special::NctaidX:
          case Special::NctaidY:
          case Special::NctaidZ: return l.grid[static_cast<int>(s.special) - static_cast<int>(Special::NctaidX)];
          case Special::LaneId: return lane;
          case Special::WarpId: return static_cast<u32>(warp_index);
          case Special::NwarpId: return static_cast<u32>(owner.warps.size());
          case Special::SmId: return owner.ctaid[0] % l.multiprocessors;
          case Special::NsmId: return l.multiprocessors;
          case Special::GridId: return static_cast<u32>(l.launch_id);
          case Special::LanemaskEq: return 1u << lane;
          case Special::LanemaskLt: return (1u << lane) - 1;
          case Special::LanemaskLe: return (2u << lane) - 1;
          case Special::LanemaskGt: return ~((2u << lane) - 1);
          case Special::LanemaskGe: return ~((1u << lane) - 1);
          case Special::DynamicSmem: return l.dynamic_shared;
          case Special::TotalSmem: return owner.shared.bytes();
          case Special::Zero: return 0;
        }
        return 0;
      };
      d[lane] = value();
    }
  }
}

void Warp::run() {
  const Instr* code = program->code.data();
  if (block->launch->options.profile) {
    auto& executed = block->profile.executed;
    auto& lane_counts = block->profile.lanes;
    while (status == WarpStatus::Ready) {
      const Instr& i = code[pc];
      const u32 mask = active & (preds[i.guard] ^ i.guard_flip);
      ++executed[pc];
      lane_counts[pc] += static_cast<u32>(__builtin_popcount(mask));
      ++pc;
      if (mask) i.fn(*this, i, mask);
      if (pc >= limit) reschedule();
    }
    return;
  }
  for (;;) {
    const Instr& i = code[pc];
    const u32 mask = active & (preds[i.guard] ^ i.guard_flip);
    ++pc;
    if (mask) i.fn(*this, i, mask);
    if (pc >= limit) [[unlikely]] {
      if (status != WarpStatus::Ready) return;
      reschedule();
      if (status != WarpStatus::Ready) return;
    }
  }
}

void Warp::jump(u32 target, u32 mask) {
  if (target < pc) {
    if (++branches > block->launch->options.branch_limit) {
      raise(FaultKind::Timeout, *this, program->code[pc - 1], -1, "still looping after %llu backward branches",
            static_cast<unsigned long long>(branches));
    }
    if (quantum && --quantum == 0) {
      status = WarpStatus::Yield;
      limit = 0;
    }
  }
  if (mask == active) {
    pc = target;
    if (others.empty()) return;
  } else {
    others.push_back({target, mask, 0, false});
    active &= ~mask;
  }
  if (status == WarpStatus::Ready) reschedule();
}

void Warp::exit_lanes(u32 mask) {
  live &= ~mask;
  active &= ~mask;
  if (active) return;
  if (!others.empty()) return reschedule();
  status = WarpStatus::Exited;
  limit = 0;
}

void Warp::reschedule() {
  if (status == WarpStatus::Yield || status == WarpStatus::Barrier) return;
  if (active) others.push_back({pc, active, 0, false});
  active = 0;
  if (others.empty()) {
    status = WarpStatus::Exited;
    limit = 0;
    return;
  }
  // Waiting fragments whose lanes have all come or exited are free again.
  u32 at_any_place = 0;
  for (const Fragment& f : others) at_any_place |= f.any_place ? f.mask : 0;
  int best = -1;
  for (int round = 0; best < 0; ++round) {
    for (size_t k = 0; k < others.size(); ++k) {
      Fragment& f = others[k];
      if (f.required) {
        u32 here = f.any_place ? at_any_place : 0;
        if (!f.any_place) {
          for (const Fragment& g : others) here |= g.pc == f.pc ? g.mask : 0;
        }
        if ((f.required & live & ~here) == 0) {
          if (f.any_place) ++f.pc;  // the warp barrier is complete: go on behind it
          f.required = 0;
          f.any_place = false;
        }
      }
      if (!f.required && (best < 0 || f.pc < others[best].pc)) best = static_cast<int>(k);
    }
    if (best < 0 && round > 0) {
      const Fragment& f = others.front();
      const Fragment& g = others.size() > 1 ? others[1] : f;
      const Instr& i = program->code[f.pc];
      raise(i.cls == InstrClass::Barrier ? FaultKind::Barrier : FaultKind::Sync, *this, i, __builtin_ctz(f.mask),
            "divergent: lanes %08x wait here for lanes %08x, but lanes %08x wait%s", f.mask, f.required & live & ~f.mask, g.mask,
            describe_line(*block, program->code[g.pc].line).c_str());
    }
  }
  pc = others[best].pc;
  limit = kAllLanes;
  size_t kept = 0;
  for (const Fragment& f : others) {
    if (f.pc == pc) {
      active |= f.mask;
    } else {
      if (f.pc > pc) limit = std::min(limit, f.pc);
      others[kept++] = f;
    }
  }
  others.resize(kept);
}

bool Warp::gather(const Instr&, u32 required, bool any_place) {
  required &= live;
  if ((required & ~active) == 0) return true;
  others.push_back({pc - 1, active, required, any_place});
  active = 0;
  reschedule();
  return false;
}

}  // namespace fovea::emulator
