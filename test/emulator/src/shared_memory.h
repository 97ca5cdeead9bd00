// Shared memory of one block with a happens-before race detector.
//
// Memory is watched in granules of the smallest access the kernel makes. Each granule knows its last writer (warp and time) and the
// readers since then. Time advances at every barrier; a warp's clock says up to which time of each other warp it is ordered, and an
// access that meets an unordered one of another warp is a race. Lanes of one warp count as ordered by the warp's program order.
// A granule under an unfinished cp.async belongs to nobody: touching it is an error until the wait.
// Reader sets are interned, because thousands of granules share the same few sets.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "lanes.h"

namespace fovea::emulator {

inline constexpr int kMaxWarps = 32;

// What each warp knows: clock[v] = time up to which warp v's accesses are ordered before the owner's next ones.
using Clock = std::array<u32, kMaxWarps>;

struct SharedView {  // a warp's part of the detector's state
  int warp = 0;
  Clock clock{};
  u32 checked_write = 0;  // stamp known to be ordered before this warp
  u32 checked_reads = 0;  // reader set known to be ordered before this warp
  struct Step {
    u32 from, to;
  };
  Step steps[8];  // reader set -> the set with this warp added at the current time
  void forget_steps() {
    for (auto& s : steps) s = {~0u, ~0u};
  }
};

class SharedMemory {
 public:
  enum class Conflict : u8 { None, Uninitialized, Pending, WriteBefore, ReadBefore };

  void reset(u32 bytes, int granule_log2);
  u8* data() { return data_; }
  u32 bytes() const { return bytes_; }
  u32 time() const { return time_; }
  void advance_time() { ++time_; }

  FOVEA_INLINE Conflict read(SharedView& v, u32 at, u32 bytes) {
    Cell* c = cells_ + (at >> granule_log2_);
    Cell* end = cells_ + ((at + bytes - 1) >> granule_log2_) + 1;
    for (; c != end; ++c) {
      if (c->write != v.checked_write) {
        const Conflict bad = check_write(v, c->write, true);
        if (bad != Conflict::None) return bad;
      }
      const SharedView::Step step = v.steps[c->reads & 7];
      c->reads = step.from == c->reads ? step.to : add_reader(v, c->reads);
    }
    return Conflict::None;
  }
  FOVEA_INLINE Conflict write(SharedView& v, u32 at, u32 bytes) { return write_as(v, at, bytes, stamp(v.warp)); }
  Conflict begin_async(SharedView& v, u32 at, u32 bytes) { return write_as(v, at, bytes, kPending | static_cast<u32>(v.warp + 1)); }
  void end_async(const SharedView& v, u32 at, u32 bytes);
  Conflict atomic(SharedView& v, u32 at, u32 bytes);
  // Who is in the way of an access that gave a conflict, for the message.
  std::string explain(const SharedView& v, u32 at, u32 bytes) const;
  void define(u32 at, u32 bytes);  // bytes written by nobody in particular

 private:
  struct Cell {
    u32 write;  // time << 8 | tag; 0: never written
    u32 reads;  // index of a reader set
  };
  struct Reader {
    u32 warp, time;
    bool operator<(const Reader& o) const { return warp != o.warp ? warp < o.warp : time < o.time; }
    bool operator==(const Reader&) const = default;
  };
  // Tag: bits 0-5 warp + 1, kSeveral after atomics of more than one warp; bit 6 atomic. Above kPending: an unfinished cp.async.
  static constexpr u32 kAtomic = 64, kSeveral = 63, kPending = 0xffffff00u;

  u32 stamp(int warp) const { return time_ << 8 | static_cast<u32>(warp + 1); }
  Conflict check_write(SharedView& v, u32 stamp, bool reading) const;
  bool check_reads(SharedView& v, u32 set) const;
  u32 add_reader(SharedView& v, u32 set);
  FOVEA_INLINE Conflict write_as(SharedView& v, u32 at, u32 bytes, u32 stamp) {
    Cell* c = cells_ + (at >> granule_log2_);
    Cell* end = cells_ + ((at + bytes - 1) >> granule_log2_) + 1;
    for (; c != end; ++c) {
      if (c->write != v.checked_write) {
        const Conflict bad = check_write(v, c->write, false);
        if (bad != Conflict::None) return bad;
      }
      if (c->reads != 0 && c->reads != v.checked_reads && !check_reads(v, c->reads)) return Conflict::ReadBefore;
      *c = {stamp, 0};
    }
    return Conflict::None;
  }

  std::vector<u8> storage_;
  std::vector<Cell> cell_storage_;
  u8* data_ = nullptr;
  Cell* cells_ = nullptr;
  u32 bytes_ = 0, time_ = 1;
  int granule_log2_ = 2;
  std::vector<std::vector<Reader>> sets_;
  std::map<std::vector<Reader>, u32> set_index_;
};

}  // namespace fovea::emulator
