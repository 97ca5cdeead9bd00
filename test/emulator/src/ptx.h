// The parsed form of a PTX module: declarations, and for every function its registers, variables and instructions in text order.
//
// Names are resolved while parsing, because `{ }` scopes may declare a register, label or variable again: operands hold indices into the
// function's tables, so later stages never look at a name except to print it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::emulator {

enum class Space : uint8_t { Generic, Register, Param, Global, Shared, Local, Const };

// A module that can't be executed: syntax, an unknown instruction, a missing symbol. `line` is 1-based in the module's text.
class PtxError : public std::runtime_error {
 public:
  PtxError(int line, const std::string& message) : std::runtime_error("ptx line " + std::to_string(line) + ": " + message), line(line) {}
  int line;
};

// Bytes of a fundamental type without its dot ("f32" -> 4, "pred" -> 0); -1 for anything else.
int bytes_of_type(std::string_view type);

struct PtxVariable {
  std::string name;
  Space space = Space::Global;
  int element_bytes = 4;
  int align = 4;
  int64_t bytes = 0;  // 0 for `extern .shared x[]`
  bool external = false;
  std::vector<uint8_t> init;  // empty, or `bytes` long
  struct Address {            // init[at..at+8) holds the address of another variable
    int64_t at;
    std::string symbol;
    int64_t offset;
  };
  std::vector<Address> addresses;
};

struct PtxRegister {
  std::string name;
  std::string type;  // "b32", "f32", "pred", ...
};

struct PtxOperand {
  enum class Kind : uint8_t { Register, Special, Integer, Float32, Float64, Variable, Label, Function, Vector, Address, Pair, Sink };
  Kind kind = Kind::Sink;
  bool negated = false;           // !%p
  int index = -1;                 // Register, Label: index in the function; Variable: see `global`
  bool global = false;            // Variable of the module instead of the function
  int64_t integer = 0;            // Integer; displacement of Address and Variable
  double real = 0;                // Float32, Float64
  std::string name;               // Special ("tid.x"), Function
  std::vector<PtxOperand> parts;  // Vector, Pair (a|b); Address: its base, if any
};

struct PtxInstruction {
  int line = 0;
  int label = -1;      // >= 0: no instruction, this label stands here
  std::string opcode;  // with all modifiers
  int guard = -1;      // register index
  bool guard_negated = false;
  std::vector<PtxOperand> operands;
  std::vector<std::vector<PtxOperand>> lists;  // parenthesised operand lists of call
};

struct PtxFunction {
  std::string name;
  int line = 0;
  bool entry = false;
  bool external = false;  // declared only
  std::vector<PtxVariable> params, results;
  std::vector<PtxVariable> variables;  // params, results, then locals
  std::vector<PtxRegister> registers;
  std::vector<std::string> labels;
  std::map<int, std::vector<int>> branch_targets;  // label of a .branchtargets list -> labels
  std::vector<PtxInstruction> body;
  int max_threads = 0;  // .maxntid / .reqntid, 0 when not given
};

struct PtxModule {
  std::string text;
  std::vector<std::string_view> lines;
  std::string version, target;
  std::vector<PtxVariable> variables;
  std::map<std::string, int, std::less<>> variable_index;
  std::vector<PtxFunction> functions;
  std::map<std::string, int, std::less<>> function_index;
};

std::unique_ptr<PtxModule> parse_ptx(std::string text);

}  // namespace fovea::emulator
