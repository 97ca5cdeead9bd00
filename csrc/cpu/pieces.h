// One block of memory cut into pieces: whole cache lines each, one after the other. A cut of no block gives the size that one must have.
#pragma once

#include <cstdint>

namespace fovea::cpu {
namespace {

class Pieces {
 public:
  explicit Pieces(void* block) : base_(static_cast<char*>(block)) {}

  template <class T = float>
  T* take(int64_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + bytes_) : nullptr;
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* base_;
  int64_t bytes_ = 0;
};

}  // namespace
}  // namespace fovea::cpu
