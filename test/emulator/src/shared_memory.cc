#include "shared_memory.h"

#include <algorithm>

namespace fovea::emulator {

void SharedMemory::reset(u32 bytes, int granule_log2) {
  bytes_ = bytes;
  granule_log2_ = granule_log2;
  time_ = 1;
  if (storage_.size() < bytes + 1024) storage_.resize(bytes + 1024);
  data_ = storage_.data() + (-reinterpret_cast<uintptr_t>(storage_.data()) & 1023);
  const size_t cells = (size_t{bytes} >> granule_log2) + 2;
  if (cell_storage_.size() < cells) cell_storage_.resize(cells);
  cells_ = cell_storage_.data();
  std::fill_n(cells_, cells, Cell{0, 0});
  sets_.assign(1, {});
  set_index_.clear();
}

SharedMemory::Conflict SharedMemory::check_write(SharedView& v, u32 stamp, bool reading) const {
  if (stamp == 0) return reading ? Conflict::Uninitialized : Conflict::None;
  if (stamp >= kPending) return Conflict::Pending;
  const u32 tag = stamp & 63, time = stamp >> 8;
  bool ordered;
  if (tag == kSeveral) {
    ordered = true;
    for (int w = 0; w < kMaxWarps; ++w) ordered &= w == v.warp || v.clock[w] >= time;
  } else {
    ordered = static_cast<int>(tag) == v.warp + 1 || tag == 0 || v.clock[tag - 1] >= time;
  }
  if (!ordered) return Conflict::WriteBefore;
  v.checked_write = stamp;
  return Conflict::None;
}

bool SharedMemory::check_reads(SharedView& v, u32 set) const {
  for (const Reader& r : sets_[set]) {
    if (static_cast<int>(r.warp) != v.warp && v.clock[r.warp] < r.time) return false;
  }
  v.checked_reads = set;
  return true;
}

u32 SharedMemory::add_reader(SharedView& v, u32 set) {
  std::vector<Reader> next;
  for (const Reader& r : sets_[set]) {
    if (static_cast<int>(r.warp) != v.warp && v.clock[r.warp] < r.time) next.push_back(r);
  }
  next.push_back({static_cast<u32>(v.warp), time_});
  std::sort(next.begin(), next.end());
  const auto [it, added] = set_index_.try_emplace(next, static_cast<u32>(sets_.size()));
  if (added) sets_.push_back(std::move(next));
  v.steps[set & 7] = {set, it->second};
  return it->second;
}

void SharedMemory::end_async(const SharedView& v, u32 at, u32 bytes) {
  for (u32 c = at >> granule_log2_; c <= (at + bytes - 1) >> granule_log2_; ++c) cells_[c] = {stamp(v.warp), 0};
}

void SharedMemory::define(u32 at, u32 bytes) {
  for (u32 c = at >> granule_log2_; c <= (at + bytes - 1) >> granule_log2_; ++c) cells_[c] = {time_ << 8, 0};
}

SharedMemory::Conflict SharedMemory::atomic(SharedView& v, u32 at, u32 bytes) {
  const u32 mine = stamp(v.warp) | kAtomic;
  for (u32 c = at >> granule_log2_; c <= (at + bytes - 1) >> granule_log2_; ++c) {
    Cell& cell = cells_[c];
    if (cell.write == 0) return Conflict::Uninitialized;
    const bool by_atomic = cell.write < kPending && (cell.write & kAtomic);
    if (!by_atomic) {
      const Conflict bad = check_write(v, cell.write, true);
      if (bad != Conflict::None) return bad;
    }
    if (cell.reads != 0 && !check_reads(v, cell.reads)) return Conflict::ReadBefore;
    const bool other = by_atomic && (cell.write & 63) != static_cast<u32>(v.warp + 1) && check_write(v, cell.write, true) != Conflict::None;
    cell = {other ? (time_ << 8 | kAtomic | kSeveral) : mine, 0};
  }
  return Conflict::None;
}

std::string SharedMemory::explain(const SharedView& v, u32 at, u32 bytes) const {
  for (u32 c = at >> granule_log2_; c <= (at + bytes - 1) >> granule_log2_; ++c) {
    const Cell& cell = cells_[c];
    const std::string where = " (shared byte " + std::to_string(c << granule_log2_) + ")";
    if (cell.write == 0) return "which nobody has written" + where;
    if (cell.write >= kPending)
      return "which a cp.async of warp " + std::to_string((cell.write & 63) - 1) + " still owns, with no wait in between" + where;
    const u32 tag = cell.write & 63, time = cell.write >> 8;
    if (tag == kSeveral) return "on which several warps work with atomics, with no barrier in between" + where;
    if (tag != 0 && static_cast<int>(tag) != v.warp + 1 && v.clock[tag - 1] < time) {
      return "which warp " + std::to_string(tag - 1) + " wrote with no barrier in between" + where;
    }
    for (const Reader& r : sets_[cell.reads]) {
      if (static_cast<int>(r.warp) != v.warp && v.clock[r.warp] < r.time) {
        return "which warp " + std::to_string(r.warp) + " read with no barrier in between" + where;
      }
    }
  }
  return "in conflict with another warp";
}

}  // namespace fovea::emulator
