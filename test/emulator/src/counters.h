// What a kernel did: instructions by class, bank conflicts of shared memory, sectors of global memory. Filled only while profiling.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "program.h"

namespace fovea::emulator {

struct MemoryCounters {
  uint64_t requests = 0;    // warp instructions
  uint64_t wavefronts = 0;  // passes over the 32 banks that they took
  uint64_t ideal = 0;       // passes that the same bytes take without a conflict
  uint64_t sectors = 0;     // 32-byte sectors of global memory touched
  uint64_t bytes = 0;       // that lanes asked for
};

struct ProfileCounters {
  std::vector<uint64_t> executed;  // per instruction
  std::vector<uint64_t> lanes;     // active lanes summed, per instruction
  MemoryCounters shared_loads, shared_stores, global_loads, global_stores;
  // Adds one request to shared memory: 32 banks of 4 bytes, lanes of 8 and 16 bytes go in 2 and 4 groups.
  void count_shared(MemoryCounters& to, uint32_t mask, const uint32_t* address, uint32_t bytes);
  void count_global(MemoryCounters& to, uint32_t mask, const uint64_t* address, uint32_t bytes);
};

struct KernelCounters {
  uint64_t launches = 0, blocks = 0, warp_instructions = 0, lane_instructions = 0;
  uint64_t by_class[kInstrClasses] = {};
  MemoryCounters shared_loads, shared_stores, global_loads, global_stores;
  std::mutex mutex;
  void add(const Program& program, const ProfileCounters& block);
};

// One JSON object with a member per kernel.
std::string to_json(const std::map<std::string, KernelCounters*>& kernels);

}  // namespace fovea::emulator
