// Whether a kernel found all its indices in range.
#pragma once

#include <cstdint>

#include "core/indices.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// The place on the device that kernels note the first bad position in.
class IndexStatus {
 public:
  explicit IndexStatus(Stream&);
  int64_t* bad() const { return memory_.data<int64_t>(); }
  // Waits for the device; -1 when every index was good. Only the queue of the device waits, callers of ops go on.
  int64_t position() const;
  // Element `position` of an index tensor on the device.
  int64_t index_at(const Indices& ids, int64_t position) const;

 private:
  void read(void* to, const void* from, size_t bytes) const;

  Stream& stream_;
  Scratch memory_;
};

}  // namespace fovea::cuda
