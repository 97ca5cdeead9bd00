// The decoded form of a kernel: what warps execute.
//
// A register is an array of 32 lanes, 4 bytes a lane for types up to 32 bits and 8 bytes for 64-bit types; its operand is the byte
// offset in the warp's register frame. Literals live in a table of broadcast lanes shared by all warps and carry kConstant. Predicates
// are 32-bit lane masks in an array of their own; their operand is an index, with kNegated for !%p.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ptx.h"

namespace fovea::emulator {

struct Warp;
struct Instr;
using Handler = void (*)(Warp&, const Instr&, uint32_t mask);
using Operand = uint32_t;

inline constexpr int kLanes = 32;
inline constexpr uint32_t kAllLanes = ~0u;
inline constexpr Operand kConstant = 1u << 31;
inline constexpr Operand kNegated = 1u << 31;
inline constexpr uint32_t kTruePredicate = 0;     // all ones, never written
inline constexpr uint32_t kScratchPredicate = 1;  // what `_` means where a predicate is written

enum class InstrClass : uint8_t {
  Integer,
  Float,
  Half,
  Convert,
  Move,
  Compare,
  Control,
  Global,
  Shared,
  Local,
  Atomic,
  Async,
  Matrix,
  Collective,
  Barrier
};
inline constexpr int kInstrClasses = 15;
const char* name_of(InstrClass cls);

struct Instr {
  Handler fn = nullptr;
  const Operand* ops = nullptr;  // destinations first
  int64_t imm = 0;               // address displacement, or a literal of the instruction
  uint32_t guard = kTruePredicate;
  uint32_t guard_flip = 0;  // all ones for @!p
  uint32_t target = 0;      // branch target; index of a side table
  uint32_t line = 0;
  uint16_t count = 0;  // operands
  uint8_t vector = 1;  // elements of a vector access
  uint8_t bytes = 0;   // of one element
  Space space = Space::Generic;
  uint8_t mode = 0;  // meaning is the handler's
  InstrClass cls = InstrClass::Integer;
};

// Registers that data flow can't prove written before every read carry one valid bit per lane, checked around the instructions that
// touch them; all others cost nothing at run time.
struct TrackedAccess {
  Handler inner;
  std::vector<uint16_t> reads, writes;
  bool copies = false;  // a plain mov: passes "not written" on instead of failing
};

enum class Special : uint8_t {
  TidX,
  TidY,
  TidZ,
  NtidX,
  NtidY,
  NtidZ,
  CtaidX,
  CtaidY,
  CtaidZ,
  NctaidX,
  NctaidY,
  NctaidZ,
  LaneId,
  WarpId,
  NwarpId,
  SmId,
  NsmId,
  GridId,
  LanemaskEq,
  LanemaskLt,
  LanemaskLe,
  LanemaskGt,
  LanemaskGe,
  DynamicSmem,
  TotalSmem,
  Zero
};

struct SpecialSlot {
  Special special;
  Operand operand;
};

struct Program {
  std::string name;
  std::shared_ptr<const PtxModule> module;  // for messages
  std::vector<Instr> code;
  std::vector<Operand> pool;
  std::vector<TrackedAccess> tracked;
  std::vector<uint32_t> tracked_at;  // instruction -> index in `tracked`, for those that have one
  std::vector<std::string> tracked_names;
  std::vector<std::vector<uint32_t>> jump_tables;
  std::vector<uint8_t> constants;  // broadcast literals, from the first 64-byte boundary on
  std::vector<SpecialSlot> specials;
  uint32_t frame_bytes = 0, predicates = 2;
  uint32_t static_shared_bytes = 0, local_bytes = 0, param_bytes = 0, const_bytes = 0;
  int live_registers = 0;  // most 32-bit registers alive at once
  int max_threads = 1024;
  int shared_granule_log2 = 2;             // smallest access to shared memory
  int64_t max_dynamic_shared = 48 * 1024;  // cuFuncSetAttribute
  std::string_view line_text(uint32_t line) const {
    return line > 0 && line <= module->lines.size() ? module->lines[line - 1] : std::string_view();
  }
};

}  // namespace fovea::emulator
