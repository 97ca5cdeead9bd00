// Pinned host memory for copies: a few chunks of two sizes, handed out and taken back. Copies larger than a chunk flow through several.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

namespace fovea::cuda {

class Staging {
 public:
  struct Chunk {
    void* data = nullptr;
    size_t bytes = 0;
  };

  // A chunk for a copy of `wanted` bytes or more of it; waits when all are in use. Needs the device's context.
  Chunk take(size_t wanted);
  void give_back(Chunk chunk);

 private:
  struct Size {
    size_t bytes;
    int limit;
    int made = 0;
    std::vector<void*> free = {};
  };
  Size& size_for(size_t bytes) { return bytes <= small_.bytes ? small_ : large_; }

  std::mutex mutex_;
  std::condition_variable returned_;
  Size small_{size_t{64} << 10, 64};
  Size large_{size_t{4} << 20, 8};
};

}  // namespace fovea::cuda
