// Global memory of one emulated device: a reserved range of host addresses, and one state byte for every byte of it.
//
// The state tells allocated from free and written from never written, so a kernel's access is checked with one comparison and no lock.
// Allocations are kept apart by a guard of kGuardBytes, so that running over an end never lands in a neighbour, and freed ranges
// are used again as late as possible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>

#include "lanes.h"

namespace fovea::emulator {

class DeviceMemory {
 public:
  static constexpr uint8_t kNever = 0, kFreed = 1, kAllocated = 2, kWritten = 3;
  static constexpr uint64_t kGuardBytes = 512, kAlign = 512;

  explicit DeviceMemory(uint64_t limit_bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  uint64_t allocate(uint64_t bytes);  // 0 when the limit is reached
  bool release(uint64_t address);     // false when no allocation begins there
  uint64_t size_of(uint64_t address) const;
  uint64_t used() const;
  uint64_t limit() const { return limit_; }
  size_t allocations() const;
  bool contains(uint64_t address) const { return address - base_ < bytes_; }

  // Host side: empty when [address, address + bytes) lies in one live allocation (and was written, for reads), else what is wrong.
  std::string check_range(uint64_t address, uint64_t bytes, bool read) const;
  void mark_written(uint64_t address, uint64_t bytes);
  void copy_state_from(const DeviceMemory& other, uint64_t to, uint64_t from, uint64_t bytes);
  std::string describe(uint64_t address) const;

  // Kernel side: whether all bytes were written; whether all are allocated, which then count as written.
  FOVEA_INLINE bool readable(uint64_t address, uint32_t bytes) const {
    const uint64_t at = address - base_;
    return at < bytes_ - 16 && all_written(state_ + at, bytes);
  }
  FOVEA_INLINE bool writable(uint64_t address, uint32_t bytes) {
    const uint64_t at = address - base_;
    if (at >= bytes_ - 16) return false;
    uint8_t* s = state_ + at;
    switch (bytes) {
      case 4: return set_written<uint32_t>(s);
      case 16: return set_written<uint64_t>(s) && set_written<uint64_t>(s + 8);
      case 8: return set_written<uint64_t>(s);
      case 2: return set_written<uint16_t>(s);
      default: return set_written<uint8_t>(s);
    }
  }
  uint8_t state_at(uint64_t address) const { return contains(address) ? state_[address - base_] : kNever; }

 private:
  template <class T>
  FOVEA_INLINE static bool is_written(const uint8_t* s) {
    T v;
    std::memcpy(&v, s, sizeof(T));
    return v == static_cast<T>(0x0303030303030303ull);
  }
  FOVEA_INLINE static bool all_written(const uint8_t* s, uint32_t bytes) {
    switch (bytes) {
      case 4: return is_written<uint32_t>(s);
      case 16: return is_written<uint64_t>(s) && is_written<uint64_t>(s + 8);
      case 8: return is_written<uint64_t>(s);
      case 2: return is_written<uint16_t>(s);
      case 1: return is_written<uint8_t>(s);
      default:
        for (uint32_t k = 0; k < bytes; ++k) {
          if (s[k] != kWritten) return false;
        }
        return true;
    }
  }
  template <class T>
  FOVEA_INLINE static bool set_written(uint8_t* s) {
    T v;
    std::memcpy(&v, s, sizeof(T));
    const T all = static_cast<T>(0x0303030303030303ull), allocated = static_cast<T>(0x0202020202020202ull);
    if (v == all) return true;
    if ((v & allocated) != allocated) return false;
    std::memcpy(s, &all, sizeof(T));
    return true;
  }
  void reclaim();

  uint64_t base_ = 0, bytes_ = 0, limit_;
  uint8_t* state_ = nullptr;
  mutable std::mutex mutex_;
  std::map<uint64_t, uint64_t> live_;                     // address -> bytes
  std::map<uint64_t, uint64_t> freed_;                    // recent, for messages
  std::deque<std::pair<uint64_t, uint64_t>> quarantine_;  // address, span
  std::map<uint64_t, uint64_t> reusable_;                 // address -> span
  uint64_t used_ = 0, next_ = 0, quarantined_ = 0;
};

}  // namespace fovea::emulator
