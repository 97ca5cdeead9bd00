// Replaces calls by the bodies of the called functions. Parameters of device functions are bytes of thread-local memory, so a formal
// parameter simply becomes another name of the variable that the caller passes.
#include "decoder.h"

namespace fovea::emulator {

namespace {

constexpr int kMaxDepth = 64;

class Inliner {
 public:
  Inliner(const PtxModule& module, const PtxFunction& kernel) : module_(module), out_(kernel) { out_.body.clear(); }

  PtxFunction run(const PtxFunction& kernel) {
    expand(kernel, Maps{}, -1, 0);
    return std::move(out_);
  }

 private:
  struct Maps {  // from indices of the callee to those of the result; empty: the same
    std::vector<int> registers, variables, labels;
  };

  static void rename(PtxOperand& op, const Maps& m) {
    for (auto& part : op.parts) rename(part, m);
    if (op.kind == PtxOperand::Kind::Register && !m.registers.empty()) op.index = m.registers[op.index];
    if (op.kind == PtxOperand::Kind::Variable && !op.global && !m.variables.empty()) op.index = m.variables[op.index];
    if (op.kind == PtxOperand::Kind::Label && !m.labels.empty()) op.index = m.labels[op.index];
  }

  void expand(const PtxFunction& f, const Maps& m, int end_label, int depth) {
    if (depth > kMaxDepth) throw PtxError(f.line, "'" + f.name + "' calls itself; recursion is not supported");
    for (const PtxInstruction& source : f.body) {
      PtxInstruction i = source;
      for (auto& op : i.operands) rename(op, m);
      for (auto& list : i.lists) {
        for (auto& op : list) rename(op, m);
      }
      if (i.label >= 0 && !m.labels.empty()) i.label = m.labels[i.label];
      if (i.guard >= 0 && !m.registers.empty()) i.guard = m.registers[i.guard];
      if (i.opcode == "call" || i.opcode.rfind("call.", 0) == 0) {
        call(i, depth);
      } else if (end_label >= 0 && (i.opcode == "ret" || i.opcode == "ret.uni")) {
        i.opcode = "bra";
        i.operands.assign(1, label(end_label));
        out_.body.push_back(std::move(i));
      } else {
        out_.body.push_back(std::move(i));
      }
    }
  }

  static PtxOperand label(int index) {
    PtxOperand op;
    op.kind = PtxOperand::Kind::Label;
    op.index = index;
    return op;
  }

  int new_label(const std::string& name) {
    out_.labels.push_back(name);
    return static_cast<int>(out_.labels.size()) - 1;
  }

  void mark(int line, int label) {
    PtxInstruction i;
    i.line = line;
    i.label = label;
    out_.body.push_back(std::move(i));
  }

  void call(const PtxInstruction& i, int depth) {
    if (i.operands.empty() || i.operands[0].kind != PtxOperand::Kind::Function) throw PtxError(i.line, "only direct calls are supported");
    const PtxFunction& callee = module_.functions[module_.function_index.find(i.operands[0].name)->second];
    if (callee.name == "__assertfail") return assert_fail(i);
    if (callee.external) throw PtxError(i.line, "function '" + callee.name + "' has no body in this module");
    std::vector<PtxOperand> results, params;
    for (const auto& list : i.lists) {
      auto& to = results.empty() && !callee.results.empty() && &list == &i.lists.front() ? results : params;
      to.insert(to.end(), list.begin(), list.end());
    }
    if (results.size() != callee.results.size() || params.size() != callee.params.size())
      throw PtxError(i.line, "wrong number of arguments for '" + callee.name + "'");
    params.insert(params.end(), results.begin(), results.end());

    Maps m;
    for (const auto& r : callee.registers) {
      m.registers.push_back(static_cast<int>(out_.registers.size()));
      out_.registers.push_back(r);
    }
    for (size_t v = 0; v < callee.variables.size(); ++v) {
      if (v < params.size()) {
        if (params[v].kind != PtxOperand::Kind::Variable) throw PtxError(i.line, "arguments must be .param variables");
        m.variables.push_back(params[v].index);
      } else {
        m.variables.push_back(static_cast<int>(out_.variables.size()));
        out_.variables.push_back(callee.variables[v]);
      }
    }
    for (const auto& name : callee.labels) m.labels.push_back(new_label(name));
    for (const auto& [list, targets] : callee.branch_targets) {
      for (int t : targets) out_.branch_targets[m.labels[list]].push_back(m.labels[t]);
    }
    const int end = new_label("end of " + callee.name);
    int skip = -1;
    if (i.guard >= 0) {
      skip = new_label("call skipped");
      PtxInstruction jump;
      jump.line = i.line;
      jump.opcode = "bra";
      jump.guard = i.guard;
      jump.guard_negated = !i.guard_negated;
      jump.operands.assign(1, label(skip));
      out_.body.push_back(std::move(jump));
    }
    if (m.registers.empty()) m.registers.push_back(0);
    if (m.variables.empty()) m.variables.push_back(0);
    expand(callee, m, end, depth + 1);
    mark(i.line, end);
    if (skip >= 0) mark(i.line, skip);
  }

  // __assertfail(message, file, line, function, char size) becomes one instruction that reads its arguments from the variables.
  void assert_fail(const PtxInstruction& i) {
    PtxInstruction fail = i;
    fail.opcode = "fovea_assert";
    fail.operands = i.lists.back();
    fail.lists.clear();
    out_.body.push_back(std::move(fail));
  }

  const PtxModule& module_;
  PtxFunction out_;
};

}  // namespace

PtxFunction inline_calls(const PtxModule& module, const PtxFunction& kernel) { return Inliner(module, kernel).run(kernel); }

}  // namespace fovea::emulator
