// A block: its warps under one of the schedules, and its barriers.
#include <algorithm>
#include <atomic>
#include <bit>
#include <exception>

#include "machine.h"
#include "workers.h"

namespace fovea::emulator {

namespace {

u8* aligned(std::vector<u8>& storage, size_t bytes) {
  if (storage.size() < bytes + 64) storage.resize(bytes + 64);
  return storage.data() + (-reinterpret_cast<uintptr_t>(storage.data()) & 63);
}

u64 mix(u64 x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

constexpr u32 kSpinQuantum = 20'000;  // backward branches until another warp gets its turn

}  // namespace

Block::Block(const Launch& l) : launch(&l) {
  const Program& p = *l.program;
  threads = l.block[0] * l.block[1] * l.block[2];
  const size_t count = (threads + kLanes - 1) / kLanes;
  warps.resize(count);
  const size_t frame = (p.frame_bytes + 63) & ~63u, local = size_t{p.local_bytes} * kLanes;
  u8* frames = aligned(frames_, frame * count);
  locals_.resize(2 * local * count);
  preds_.resize(p.predicates * count);
  valids_.resize((p.tracked_names.size() + 1) * count);
  const u8* consts = p.constants.data() + (-reinterpret_cast<uintptr_t>(p.constants.data()) & 63);
  for (size_t k = 0; k < count; ++k) {
    Warp& w = warps[k];
    w.regs = frames + frame * k;
    w.consts = consts;
    w.preds = preds_.data() + p.predicates * k;
    w.valid = valids_.data() + (p.tracked_names.size() + 1) * k;
    w.local = locals_.data() + 2 * local * k;
    w.local_written = w.local + local;
  }
  if (l.options.profile) {
    profile.executed.assign(p.code.size(), 0);
    profile.lanes.assign(p.code.size(), 0);
  }
}

void Block::run(u64 linear_block) {
  const Launch& l = *launch;
  ctaid[0] = static_cast<u32>(linear_block % l.grid[0]);
  ctaid[1] = static_cast<u32>(linear_block / l.grid[0] % l.grid[1]);
  ctaid[2] = static_cast<u32>(linear_block / l.grid[0] / l.grid[1]);
  random = mix(l.options.seed * 0x10001 + linear_block) | 1;
  shared.reset(l.program->static_shared_bytes + l.dynamic_shared, l.program->shared_granule_log2);
  barriers.fill({});
  mbarrier_clocks.clear();
  for (size_t k = 0; k < warps.size(); ++k) warps[k].start(*this, static_cast<int>(k));
  last_ = nullptr;
  while (Warp* w = choose()) {
    w->status = WarpStatus::Ready;
    w->quantum = l.options.warps == Order::Random ? 1 + next_random() % 64 : kSpinQuantum;
    w->limit = kAllLanes;
    if (w->active || !w->others.empty()) w->reschedule();
    if (w->status == WarpStatus::Ready) w->run();
    last_ = w;
  }
}

Warp* Block::choose() {
  const int n = static_cast<int>(warps.size());
  const auto runnable = [&](const Warp& w) { return w.status == WarpStatus::Ready || w.status == WarpStatus::Yield; };
  int count = 0, exited = 0;
  for (const Warp& w : warps) {
    count += runnable(w);
    exited += w.status == WarpStatus::Exited;
  }
  if (count == 0) {
    if (exited != n) deadlock();
    return nullptr;
  }
  if (launch->options.warps == Order::Random) {
    int pick = static_cast<int>(next_random() % static_cast<u32>(count));
    for (Warp& w : warps) {
      if (runnable(w) && pick-- == 0) return &w;
    }
  }
  // A warp that spins goes behind the others.
  const bool reverse = launch->options.warps == Order::Reverse;
  const bool spinning = last_ && last_->status == WarpStatus::Yield;
  const int from = !spinning ? 0 : reverse ? n - last_->index : last_->index + 1;
  Warp* found = nullptr;
  for (int k = 0; k < n && !found; ++k) {
    Warp& w = warps[reverse ? (2 * n - 1 - from - k) % n : (from + k) % n];
    if (runnable(w)) found = &w;
  }
  return found;
}

void Block::arrive(Warp& w, const Instr& i, u32 id, u32 count, bool wait) {
  Barrier& b = barriers[id];
  const bool whole_block = count == 0;
  if (whole_block) count = (threads + kLanes - 1) / kLanes * kLanes;
  if (count % kLanes) raise(FaultKind::Barrier, w, i, -1, "a barrier of %u threads; the number must be a multiple of 32", count);
  if (w.live != w.lanes)
    raise(FaultKind::Barrier, w, i, -1, "lanes %08x of the warp have exited and can't come to this barrier", w.lanes & ~w.live);
  if (b.expected && b.expected != count) {
    raise(FaultKind::Barrier, w, i, -1, "barrier %u is for %u threads here, but for %u%s", id, count, b.expected,
          describe_line(*this, b.line).c_str());
  }
  if (b.members >> w.index & 1)
    raise(FaultKind::Barrier, w, i, -1, "warp %d comes to barrier %u a second time before it is complete", w.index, id);
  b.expected = count;
  b.line = i.line;
  b.arrived += kLanes;
  b.members |= 1u << w.index;
  if (wait) {
    b.waiting |= 1u << w.index;
    w.status = WarpStatus::Barrier;
    w.limit = 0;
  }
  if (b.arrived >= b.expected) complete(b);
}

void Block::complete(Barrier& b) {
  Clock joined{};
  for (Warp& w : warps) {
    if (!(b.members >> w.index & 1)) continue;
    for (int k = 0; k < kMaxWarps; ++k) joined[k] = std::max(joined[k], w.shared.clock[k]);
  }
  for (const Warp& w : warps) {
    if (b.members >> w.index & 1) joined[w.index] = shared.time();
  }
  shared.advance_time();
  for (Warp& w : warps) {
    w.shared.forget_steps();
    if (!(b.waiting >> w.index & 1)) continue;
    w.shared.clock = joined;
    w.status = WarpStatus::Ready;
    w.limit = kAllLanes;
  }
  const u32 votes = b.votes, all = b.all, any = b.any;
  b = {};
  b.votes = votes, b.all = all, b.any = any;
}

void Block::deadlock() {
  std::string message = "deadlock: no warp can go on.";
  for (const Warp& w : warps) {
    message += " Warp " + std::to_string(w.index);
    message += w.status == WarpStatus::Exited ? " has exited;"
                                              : " waits" + describe_line(*this, launch->program->code[w.pc ? w.pc - 1 : 0].line) + ";";
  }
  raise_block(FaultKind::Barrier, *this, message);
}

void run_grid(const Launch& launch) {
  const u64 blocks = u64{launch.grid[0]} * launch.grid[1] * launch.grid[2];
  std::vector<u64> order;
  if (launch.options.blocks == Order::Random) {
    order.resize(blocks);
    for (u64 k = 0; k < blocks; ++k) order[k] = k;
    u64 state = mix(launch.options.seed);
    for (u64 k = blocks; k > 1; --k) std::swap(order[k - 1], order[(state = mix(state)) % k]);
  }
  std::atomic<u64> next{0};
  std::mutex mutex;
  std::exception_ptr first;
  const auto work = [&] {
    try {
      Block block(launch);
      for (u64 k; (k = next.fetch_add(1)) < blocks;) {
        block.run(!order.empty() ? order[k] : launch.options.blocks == Order::Reverse ? blocks - 1 - k : k);
      }
      if (launch.options.profile && launch.counters) launch.counters->add(*launch.program, block.profile);
    } catch (...) {
      next = blocks;
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
    }
  };
  Workers::instance().run(static_cast<int>(std::min<u64>(blocks, static_cast<u64>(launch.options.threads))), work);
  if (launch.options.profile && launch.counters) {
    const std::lock_guard lock(launch.counters->mutex);
    ++launch.counters->launches;
    launch.counters->blocks += blocks;
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace fovea::emulator
