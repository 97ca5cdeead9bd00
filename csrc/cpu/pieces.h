// One block of memory cut into pieces: whole cache lines each, one after the other. A cut of no block gives the size that one must have.
// What lies between pieces must not be touched (red_zone.h).
#pragma once

#include <cstdint>

#include "core/red_zone.h"

namespace fovea::cpu {
namespace {

class Pieces {
 public:
  explicit Pieces(void* block) : base_(static_cast<char*>(block)) {}

  template <class T = float>
  T* take(int64_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + bytes_) : nullptr;
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T)), room = (bytes + 63) / 64 * 64 + static_cast<int64_t>(kRedZoneBytes);
    if (base_) forbid(base_ + bytes_ + bytes, static_cast<size_t>(room - bytes));
    bytes_ += room;
    return piece;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* base_;
  int64_t bytes_ = 0;
};

}  // namespace
}  // namespace fovea::cpu
