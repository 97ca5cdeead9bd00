#include "device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace fovea::emulator {

namespace {

constexpr uint64_t kQuarantineBytes = 64ull << 20;

uint8_t* reserve(uint64_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return static_cast<uint8_t*>(p);
}

}  // namespace

DeviceMemory::DeviceMemory(uint64_t limit_bytes) : limit_(limit_bytes) {
  bytes_ = 2 * limit_bytes + (1ull << 30);
  base_ = reinterpret_cast<uint64_t>(reserve(bytes_));
  state_ = reserve(bytes_);
  next_ = base_ + kGuardBytes;
}

DeviceMemory::~DeviceMemory() {
  munmap(reinterpret_cast<void*>(base_), bytes_);
  munmap(state_, bytes_);
}

uint64_t DeviceMemory::allocate(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes > limit_ || used_ + bytes > limit_) return 0;
  const uint64_t span = (std::max<uint64_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign + kGuardBytes;
  uint64_t address = 0;
  for (auto it = reusable_.begin(); it != reusable_.end(); ++it) {
    if (it->second < span) continue;
    address = it->first;
    const uint64_t rest = it->second - span;
    reusable_.erase(it);
    if (rest) reusable_[address + span] = rest;
    break;
  }
  if (!address) {
    if (next_ + span > base_ + bytes_) reclaim();
    if (next_ + span > base_ + bytes_) return 0;
    address = next_;
    next_ += span;
  }
  freed_.erase(freed_.lower_bound(address), freed_.lower_bound(address + span));
  live_[address] = bytes;
  used_ += bytes;
  std::memset(state_ + (address - base_), kAllocated, bytes);
  std::memset(state_ + (address - base_) + bytes, kNever, span - bytes);
  return address;
}

bool DeviceMemory::release(uint64_t address) {
  const std::lock_guard lock(mutex_);
  const auto it = live_.find(address);
  if (it == live_.end()) return false;
  const uint64_t bytes = it->second;
  live_.erase(it);
  used_ -= bytes;
  freed_[address] = bytes;
  std::memset(state_ + (address - base_), kFreed, bytes);
  const uint64_t span = (std::max<uint64_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign + kGuardBytes;
  quarantine_.emplace_back(address, span);
  quarantined_ += span;
  if (quarantined_ > kQuarantineBytes) reclaim();
  return true;
}

// Lets the oldest freed ranges be used again and joins neighbours.
void DeviceMemory::reclaim() {
  while (!quarantine_.empty() && (quarantined_ > kQuarantineBytes / 2 || next_ + kQuarantineBytes > base_ + bytes_)) {
    const auto [address, span] = quarantine_.front();
    quarantine_.pop_front();
    quarantined_ -= span;
    if (span > (1u << 20)) {  // give the pages back to the host
      const uint64_t from = (address + 4095) & ~4095ull, to = (address + span) & ~4095ull;
      madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
    }
    auto it = reusable_.emplace(address, span).first;
    if (const auto after = std::next(it); after != reusable_.end() && it->first + it->second == after->first) {
      it->second += after->second;
      reusable_.erase(after);
    }
    if (it != reusable_.begin()) {
      const auto before = std::prev(it);
      if (before->first + before->second == it->first) {
        before->second += it->second;
        reusable_.erase(it);
      }
    }
  }
}

uint64_t DeviceMemory::size_of(uint64_t address) const {
  const std::lock_guard lock(mutex_);
  const auto it = live_.find(address);
  return it == live_.end() ? 0 : it->second;
}

uint64_t DeviceMemory::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

size_t DeviceMemory::allocations() const {
  const std::lock_guard lock(mutex_);
  return live_.size();
}

std::string DeviceMemory::check_range(uint64_t address, uint64_t bytes, bool read) const {
  const std::lock_guard lock(mutex_);
  if (bytes == 0) return {};
  auto it = live_.upper_bound(address);
  if (it == live_.begin()) return "no allocation there";
  --it;
  if (address + bytes > it->first + it->second) {
    return address < it->first + it->second ? "it runs " + std::to_string(address + bytes - it->first - it->second) +
                                                  " bytes over the end of an allocation of " + std::to_string(it->second)
                                            : "no allocation there";
  }
  if (!read) return {};
  const uint8_t* begin = state_ + (address - base_);
  const uint8_t* bad = std::find_if(begin, begin + bytes, [](uint8_t s) { return s != kWritten; });
  return bad == begin + bytes ? "" : "byte " + std::to_string(bad - begin) + " of it was never written";
}

void DeviceMemory::mark_written(uint64_t address, uint64_t bytes) { std::memset(state_ + (address - base_), kWritten, bytes); }

void DeviceMemory::copy_state_from(const DeviceMemory& other, uint64_t to, uint64_t from, uint64_t bytes) {
  std::memmove(state_ + (to - base_), other.state_ + (from - other.base_), bytes);
}

std::string DeviceMemory::describe(uint64_t address) const {
  const std::lock_guard lock(mutex_);
  if (!contains(address)) return "not an address of this device";
  const auto near = [&](const std::map<uint64_t, uint64_t>& map) {
    auto it = map.upper_bound(address);
    return it == map.begin() ? map.end() : std::prev(it);
  };
  if (const auto f = near(freed_); f != freed_.end() && address < f->first + f->second) {
    return "byte " + std::to_string(address - f->first) + " of an allocation of " + std::to_string(f->second) + " bytes that was freed";
  }
  if (const auto l = near(live_); l != live_.end() && address - l->first < l->second + (1 << 16)) {
    return "byte " + std::to_string(address - l->first) + " of an allocation of " + std::to_string(l->second) + " bytes";
  }
  if (const auto after = live_.upper_bound(address); after != live_.end() && after->first - address < (1 << 16)) {
    return std::to_string(after->first - address) + " bytes before an allocation of " + std::to_string(after->second) + " bytes";
  }
  return "no allocation near";
}

}  // namespace fovea::emulator
