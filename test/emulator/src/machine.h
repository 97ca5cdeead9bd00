// The state that handlers work on: a launch, its blocks, their warps.
//
// A warp is a set of fragments: groups of lanes with one pc each. The fragment with the lowest pc runs, until it reaches the next
// fragment's pc, where they merge; that reconverges nested branches, loops and switches of compiler-made code, whose blocks are in
// topological order. Instructions that need several lanes together (.sync, .aligned) hold a fragment back until they have come.
#pragma once

#include <array>
#include <mutex>
#include <string>
#include <vector>

#include "counters.h"
#include "device_memory.h"
#include "fault.h"
#include "lanes.h"
#include "program.h"
#include "shared_memory.h"

namespace fovea::emulator {

// Windows of the generic address space that are not global memory.
inline constexpr u64 kSharedWindow = 0x1'0000'0000, kLocalWindow = 0x2'0000'0000, kParamWindow = 0x3'0000'0000, kWindowBytes = 1 << 26;

enum class Order : u8 { Forward, Reverse, Random };

struct Options {
  Order warps = Order::Forward, blocks = Order::Forward;
  u64 seed = 1;
  bool async_early = false;  // cp.async data lands at once instead of at the wait
  bool profile = false;
  int threads = 1;
  u64 branch_limit = 1ull << 28;  // per warp
};

struct Launch {
  const Program* program = nullptr;
  DeviceMemory* memory = nullptr;
  u32 grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  u32 dynamic_shared = 0;
  u32 shared_limit = 0;
  std::vector<u8> params;
  Options options;
  KernelCounters* counters = nullptr;
  u64 launch_id = 0;
  u32 device_id = 0, multiprocessors = 1;
};

struct Fragment {
  u32 pc, mask;
  u32 required = 0;        // lanes that an instruction at pc waits for; 0: free to run
  bool any_place = false;  // bar.warp.sync: the lanes may come to different instructions
};

struct AsyncCopy {
  u64 source;
  u32 target;
  u32 group;
  u8 lane, bytes, source_bytes;
};

enum class WarpStatus : u8 { Ready, Barrier, Yield, Exited };

struct Block;

struct Warp {
  // Registers.
  u8* regs = nullptr;
  const u8* consts = nullptr;
  u32* preds = nullptr;
  u32* valid = nullptr;  // of tracked registers
  u8* local = nullptr;   // lane-major, then the same size of written flags
  u8* local_written = nullptr;
  std::array<u32, kLanes> carry{};

  // Control.
  u32 pc = 0, limit = kAllLanes, active = 0;
  u32 live = 0;   // lanes that exist and have not exited
  u32 lanes = 0;  // lanes that exist
  WarpStatus status = WarpStatus::Ready;
  bool reducing = false;  // stands at a bar.red that is complete once the warp runs again
  std::vector<Fragment> others;
  u64 branches = 0;
  u32 quantum = 0;

  // Memory.
  SharedView shared;
  std::vector<AsyncCopy> copies;
  std::array<u32, kLanes> copy_group{};

  Block* block = nullptr;
  const Program* program = nullptr;
  int index = 0;

  template <class T>
  FOVEA_INLINE storage_t<T>* dst(Operand o) {
    return reinterpret_cast<storage_t<T>*>(__builtin_assume_aligned(regs + o, 64));
  }
  template <class T>
  FOVEA_INLINE const storage_t<T>* src(Operand o) const {
    const u8* base = (o & kConstant) ? consts : regs;
    return reinterpret_cast<const storage_t<T>*>(__builtin_assume_aligned(base + (o & ~kConstant), 64));
  }
  FOVEA_INLINE u32 pred(Operand o) const { return preds[o & ~kNegated] ^ ((o & kNegated) ? kAllLanes : 0); }
  FOVEA_INLINE void set_pred(Operand o, u32 value, u32 mask) { preds[o] = (preds[o] & ~mask) | (value & mask); }

  void start(Block& owner, int warp_index);
  void run();  // until status is not Ready
  void jump(u32 target, u32 mask);
  void exit_lanes(u32 mask);
  void reschedule();
  // True when all lanes of `required` that still live stand here; else the fragment waits, and the handler returns at once.
  bool gather(const Instr& i, u32 required, bool any_place = false);
};

struct Barrier {
  u32 arrived = 0;   // threads
  u32 expected = 0;  // threads; 0: none has come yet
  u32 waiting = 0;   // warps
  u32 members = 0;   // warps that came, waiting or not
  u32 line = 0;
  u32 votes = 0, all = 1, any = 0;
};

struct Block {
  const Launch* launch = nullptr;
  u32 ctaid[3] = {0, 0, 0};
  u32 threads = 0;
  SharedMemory shared;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  std::map<u32, Clock> mbarrier_clocks;  // by shared address
  ProfileCounters profile;
  u64 random = 1;

  explicit Block(const Launch& l);
  void run(u64 linear_block);
  void arrive(Warp& w, const Instr& i, u32 id, u32 threads, bool wait);
  u32 next_random() {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return static_cast<u32>(random >> 32);
  }

 private:
  void complete(Barrier& b);
  Warp* choose();
  [[noreturn]] void deadlock();
  std::vector<u8> frames_, locals_;
  std::vector<u32> preds_, valids_;
  Warp* last_ = nullptr;
};

// Runs the whole grid; throws the first Fault.
void run_grid(const Launch& launch);

}  // namespace fovea::emulator
