// From a parsed kernel to a Program, in three passes: inline.cc expands calls, select*.cc chooses a handler for each instruction,
// allocate.cc finds registers that may be read before they are written and gives every register a slot in the frame.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "program.h"
#include "ptx.h"
#include "registry.h"

namespace fovea::emulator {

struct LoadedModule {
  std::shared_ptr<const PtxModule> ptx;
  std::vector<uint64_t> addresses;  // of ptx->variables in .global and .const
};

std::shared_ptr<const Program> decode(const LoadedModule& module, const PtxFunction& kernel);

// The kernel with all calls replaced by the bodies of their functions; recursion and calls through pointers are refused.
PtxFunction inline_calls(const PtxModule& module, const PtxFunction& kernel);

// An operand before registers have slots.
struct DraftOperand {
  enum class Kind : uint8_t { Register, Predicate, Constant, FixedPredicate };
  Kind kind = Kind::Constant;
  bool negated = false;
  int index = 0;  // register of the function; byte offset of a constant; number of a fixed predicate
};

struct Draft {
  Instr instr;
  int destinations = 0;
  std::vector<DraftOperand> ops;
  int guard = -1;  // register
  bool guard_negated = false;
  bool copies = false;       // plain register copy
  bool selects = false;      // selp d, a, b, p
  bool ends = false;         // control never reaches the next instruction when the guard is not there
  std::vector<int> targets;  // labels, then instruction indices
  int jump_table = -1;
};

struct DraftProgram {
  std::vector<Draft> code;
  std::vector<uint8_t> widths;  // bytes of each register: 0 predicate, 4, 8
  std::vector<std::string> names;
  std::map<Special, int> specials;  // -> register
};

void allocate_registers(DraftProgram& draft, Program& program);

// Opcode split at its dots: base "ld", modifiers {"global", "v4", "f32"}.
struct Opcode {
  explicit Opcode(std::string_view text);
  std::string_view base;
  std::vector<std::string_view> modifiers;
  bool has(std::string_view modifier) const;
  std::string_view last() const { return modifiers.empty() ? std::string_view() : modifiers.back(); }
  std::string without(std::initializer_list<std::string_view> drop) const;
};

class Selector {
 public:
  Selector(const LoadedModule& module, const PtxFunction& f, Program& program);
  DraftProgram run();

 private:
  using Method = void (Selector::*)(const PtxInstruction&, const Opcode&);
  static const std::map<std::string_view, Method>& methods();

  // select.cc
  void instruction(const PtxInstruction& in);
  void generic(const PtxInstruction& in, const Opcode& op);
  void compare(const PtxInstruction& in, const Opcode& op);
  void set(const PtxInstruction& in, const Opcode& op);
  void select_value(const PtxInstruction& in, const Opcode& op);
  void move(const PtxInstruction& in, const Opcode& op);
  void move_vector(const PtxInstruction& in, const Opcode& op);
  void convert_address(const PtxInstruction& in, const Opcode& op);
  void is_space(const PtxInstruction& in, const Opcode& op);
  void carry(const PtxInstruction& in, const Opcode& op);
  void lop3(const PtxInstruction& in, const Opcode& op);
  void test_property(const PtxInstruction& in, const Opcode& op);
  void nothing(const PtxInstruction& in, const Opcode& op);
  // select_control.cc
  void branch(const PtxInstruction& in, const Opcode& op);
  void branch_indexed(const PtxInstruction& in, const Opcode& op);
  void leave(const PtxInstruction& in, const Opcode& op);
  void barrier(const PtxInstruction& in, const Opcode& op);
  void shuffle(const PtxInstruction& in, const Opcode& op);
  void vote(const PtxInstruction& in, const Opcode& op);
  void match(const PtxInstruction& in, const Opcode& op);
  void redux(const PtxInstruction& in, const Opcode& op);
  void active_mask(const PtxInstruction& in, const Opcode& op);
  void elect(const PtxInstruction& in, const Opcode& op);
  void assert_fail(const PtxInstruction& in, const Opcode& op);
  // select_memory.cc
  void load(const PtxInstruction& in, const Opcode& op);
  void store(const PtxInstruction& in, const Opcode& op);
  void atomic(const PtxInstruction& in, const Opcode& op);
  void async_copy(const PtxInstruction& in, const Opcode& op);
  void mbarrier(const PtxInstruction& in, const Opcode& op);
  void load_matrix(const PtxInstruction& in, const Opcode& op);
  void store_matrix(const PtxInstruction& in, const Opcode& op);
  void mma(const PtxInstruction& in, const Opcode& op);

  [[noreturn]] void error(const std::string& message) const;
  const OpEntry& entry(const std::string& key) const;
  Draft& emit(const OpEntry& e);
  void add_operands(const OpEntry& e, const std::vector<const PtxOperand*>& operands);
  DraftOperand operand(const PtxOperand& op, Kind kind, bool destination);
  DraftOperand constant(uint64_t bits, int bytes);
  DraftOperand scratch(int bytes);
  static DraftOperand fixed_predicate(uint32_t index, bool negated = false) {
    return {DraftOperand::Kind::FixedPredicate, negated, static_cast<int>(index)};
  }
  DraftOperand special(const std::string& name);
  int register_bytes(const PtxOperand& op) const;
  // Address operand [base+imm]: fills imm, space and mode of the draft, gives the base.
  DraftOperand address(const PtxOperand& op, Space& space, int64_t& displacement, bool& wide);
  uint64_t address_of_variable(const PtxOperand& op, Space& space) const;
  void watch_shared(Space space, int bytes);
  Space space_of(const Opcode& op) const;

  const LoadedModule& module_;
  const PtxFunction& f_;
  Program& program_;
  DraftProgram out_;
  std::vector<int64_t> variable_offset_;         // of f_.variables in their space
  std::map<int, int64_t> module_shared_offset_;  // module variables in .shared
  std::map<std::pair<uint64_t, int>, int> constants_;
  std::vector<uint8_t> constant_bytes_;
  std::map<int, int> label_at_;
  const PtxInstruction* now_ = nullptr;
};

}  // namespace fovea::emulator
