// The caching allocator of host memory.
//
// Freed blocks are kept by size class and handed out again without touching the system. Reuse is ordered by the CPU stream: a block may be
// handed to a new tensor while queued kernels of its former owner have yet to run, because whatever the new owner does is queued behind
// them. Memory that the calling thread itself writes at once must come from allocate_idle, which only reuses blocks the stream is done
// with.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fovea {

struct MemoryStats {
  int64_t live_bytes;  // owned by tensors, rounded to block sizes
  int64_t live_blocks;
  int64_t cached_bytes;     // free blocks kept for reuse
  int64_t peak_live_bytes;  // highest live_bytes since the last reset
  int64_t limit_bytes;      // live + cached may not exceed this; 0 = no limit
};

class Allocator {
 public:
  static Allocator& instance();

  // A 64-byte aligned block of at least `bytes`; throws ERR_OOM after giving cached memory back and trying again.
  void* allocate(size_t bytes);
  void* allocate_idle(size_t bytes);
  void release(void* data, size_t bytes);

  // Memory for the length of one kernel call, taken and given back by the thread that runs it: an idle block, which stays idle because
  // nothing queued knows it. Never waits for the stream; throws ERR_OOM.
  void* allocate_call(size_t bytes);
  void release_call(void* data, size_t bytes);

  // Gives cached blocks back to the system once the stream has passed the work queued so far.
  void trim();
  MemoryStats stats() const;
  void reset_peak();
  void set_limit(int64_t bytes);

  // What allocate(bytes) really takes.
  static size_t block_size(size_t bytes);

 private:
  Allocator();
  struct Impl;
  Impl* impl_;
};

}  // namespace fovea
