// Finding and checking the bytes that a lane's memory access means. Included by the handlers of loads, stores, atomics, copies.
#pragma once

#include "machine.h"

namespace fovea::emulator {

// Says what is wrong with an access that locate_* refused, and throws.
[[noreturn, gnu::cold]] void raise_access(Warp& w, const Instr& i, int lane, Space space, u64 address, u32 bytes, bool write);

// Instr::mode of loads and stores.
inline constexpr u8 kWideAddress = 1;  // the address register has 64 bits
inline constexpr u8 kStrong = 2;       // volatile, relaxed, acquire, release: not a race with other strong accesses

namespace {

FOVEA_INLINE void addresses_of(Warp& w, const Instr& i, Operand base, u64* out) {
  if (i.mode & kWideAddress) {
    const u64* s = w.src<u64>(base);
    for (int l = 0; l < kLanes; ++l) out[l] = s[l] + static_cast<u64>(i.imm);
  } else {
    const u32* s = w.src<u32>(base);
    for (int l = 0; l < kLanes; ++l) out[l] = static_cast<u32>(s[l] + static_cast<u32>(i.imm));
  }
}

FOVEA_INLINE Space space_of_generic(u64& address) {
  const auto inside = [&](u64 window) {
    if (address - window >= kWindowBytes) return false;
    address -= window;
    return true;
  };
  if (inside(kSharedWindow)) return Space::Shared;
  if (inside(kLocalWindow)) return Space::Local;
  if (inside(kParamWindow)) return Space::Param;
  return Space::Global;
}

FOVEA_INLINE const u8* locate_load(Warp& w, const Instr& i, int lane, u64 address, u32 bytes) {
  Space space = i.space == Space::Generic ? space_of_generic(address) : i.space;
  if ((address & (bytes - 1)) == 0) [[likely]] {
    const Launch& launch = *w.block->launch;
    switch (space) {
      case Space::Shared: {
        SharedMemory& s = w.block->shared;
        if (address + bytes > s.bytes()) break;
        const auto conflict = s.read(w.shared, static_cast<u32>(address), bytes);
        if (conflict == SharedMemory::Conflict::None || (conflict == SharedMemory::Conflict::WriteBefore && (i.mode & kStrong)))
          return s.data() + address;
        break;
      }
      case Space::Local: {
        const u32 size = w.program->local_bytes;
        if (address + bytes > size) break;
        const u64 at = u64{static_cast<u32>(lane)} * size + address;
        bool written = true;
        for (u32 k = 0; k < bytes; ++k) written &= w.local_written[at + k] != 0;
        if (written) return w.local + at;
        break;
      }
      case Space::Param:
        if (address + bytes <= launch.params.size()) return launch.params.data() + address;
        break;
      default:
        if (launch.memory->readable(address, bytes)) return reinterpret_cast<const u8*>(address);
    }
  }
  raise_access(w, i, lane, space, address, bytes, false);
}

FOVEA_INLINE u8* locate_store(Warp& w, const Instr& i, int lane, u64 address, u32 bytes) {
  Space space = i.space == Space::Generic ? space_of_generic(address) : i.space;
  if ((address & (bytes - 1)) == 0) [[likely]] {
    switch (space) {
      case Space::Shared: {
        SharedMemory& s = w.block->shared;
        if (address + bytes > s.bytes()) break;
        auto conflict = s.write(w.shared, static_cast<u32>(address), bytes);
        if (conflict != SharedMemory::Conflict::None && (i.mode & kStrong)) conflict = s.atomic(w.shared, static_cast<u32>(address), bytes);
        if (conflict == SharedMemory::Conflict::None) return s.data() + address;
        break;
      }
      case Space::Local: {
        const u32 size = w.program->local_bytes;
        if (address + bytes > size) break;
        const u64 at = u64{static_cast<u32>(lane)} * size + address;
        for (u32 k = 0; k < bytes; ++k) w.local_written[at + k] = 1;
        return w.local + at;
      }
      case Space::Global:
        if (w.block->launch->memory->writable(address, bytes)) return reinterpret_cast<u8*>(address);
        break;
      default: break;
    }
  }
  raise_access(w, i, lane, space, address, bytes, true);
}

FOVEA_INLINE void count_access(Warp& w, const Instr& i, u32 mask, const u64* address, u32 bytes, bool write) {
  if (!w.block->launch->options.profile) return;
  ProfileCounters& p = w.block->profile;
  u64 copy[kLanes];
  u32 offset[kLanes];
  u32 shared = 0, global = 0;
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    copy[l] = address[l];
    const Space space = i.space == Space::Generic ? space_of_generic(copy[l]) : i.space;
    offset[l] = static_cast<u32>(copy[l]);
    shared |= static_cast<u32>(space == Space::Shared) << l;
    global |= static_cast<u32>(space == Space::Global) << l;
  }
  if (shared) p.count_shared(write ? p.shared_stores : p.shared_loads, shared, offset, bytes);
  if (global) p.count_global(write ? p.global_stores : p.global_loads, global, copy, bytes);
}

}  // namespace
}  // namespace fovea::emulator
