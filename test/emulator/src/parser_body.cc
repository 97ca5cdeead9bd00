#include <map>

#include "parser.h"

namespace fovea::emulator {

namespace {

class BodyParser {
 public:
  BodyParser(TokenStream& in, const PtxModule& module, PtxFunction& function) : in_(in), module_(module), f_(function) {}

  void run() {
    scopes_.push_back({-1, {}, {}, {}});
    scope_ = 0;
    for (size_t i = 0; i < f_.variables.size(); ++i) scopes_[0].variables[f_.variables[i].name] = static_cast<int>(i);
    while (scope_ >= 0) statement();
    for (auto& instruction : f_.body) {
      for (auto& op : instruction.operands) resolve_label(op, instruction.line);
    }
    for (auto& list : target_lists_) {
      std::vector<int> targets;
      for (auto& op : list.targets) {
        resolve_label(op, list.line);
        targets.push_back(op.index);
      }
      f_.branch_targets[list.label] = std::move(targets);
    }
  }

 private:
  struct Scope {
    int parent;
    std::map<std::string, int, std::less<>> registers, variables, labels;
  };
  struct TargetList {
    int label, line;
    std::vector<PtxOperand> targets;
  };

  int find(std::map<std::string, int, std::less<>> Scope::*table, std::string_view name, int scope) const {
    for (; scope >= 0; scope = scopes_[scope].parent) {
      const auto& map = scopes_[scope].*table;
      if (const auto it = map.find(name); it != map.end()) return it->second;
    }
    return -1;
  }

  void statement() {
    if (in_.at_end()) in_.error("the body of '" + f_.name + "' doesn't end");
    if (in_.accept("{")) {
      scopes_.push_back({scope_, {}, {}, {}});
      scope_ = static_cast<int>(scopes_.size()) - 1;
    } else if (in_.accept("}")) {
      scope_ = scopes_[scope_].parent;
    } else if (in_.accept(";")) {
    } else if (in_.accept(".reg")) {
      registers();
    } else if (in_.accept(".pragma")) {
      while (!in_.accept(";")) in_.next();
    } else if (in_.is(".local") || in_.is(".shared") || in_.is(".param")) {
      const std::string_view space = in_.next().text;
      variable(space == ".shared" ? Space::Shared : Space::Local);
    } else if (in_.peek().kind == Token::Kind::Word && in_.peek(1).is(":")) {
      label();
    } else {
      instruction();
    }
  }

  void registers() {
    std::string type(in_.word());
    while (type == ".v2" || type == ".v4") in_.error("vector registers are not supported");
    type.erase(0, 1);
    if (bytes_of_type(type) < 0) in_.error("unknown register type '." + type + "'");
    do {
      const std::string name(in_.word());
      if (in_.accept("<")) {
        const int64_t count = in_.integer();
        in_.expect(">");
        for (int64_t i = 0; i < count; ++i) add_register(name + std::to_string(i), type);
      } else {
        add_register(name, type);
      }
    } while (in_.accept(","));
    in_.expect(";");
  }

  void add_register(const std::string& name, const std::string& type) {
    scopes_[scope_].registers[name] = static_cast<int>(f_.registers.size());
    f_.registers.push_back({name, type});
  }

  void variable(Space space) {
    PtxVariable var = parse_variable(in_, space);
    in_.expect(";");
    scopes_[scope_].variables[var.name] = static_cast<int>(f_.variables.size());
    f_.variables.push_back(std::move(var));
  }

  void label() {
    const int line = in_.peek().line;
    const std::string name(in_.word());
    in_.expect(":");
    if (scopes_[scope_].labels.count(name)) in_.error("label '" + name + "' is defined twice");
    const int index = static_cast<int>(f_.labels.size());
    scopes_[scope_].labels[name] = index;
    f_.labels.push_back(name);
    if (in_.accept(".branchtargets")) {
      TargetList list{index, line, {}};
      do {
        list.targets.push_back(label_reference(in_.word()));
      } while (in_.accept(","));
      in_.expect(";");
      target_lists_.push_back(std::move(list));
      return;
    }
    if (in_.is(".callprototype")) in_.error("indirect calls are not supported");
    PtxInstruction mark;
    mark.line = line;
    mark.label = index;
    f_.body.push_back(std::move(mark));
  }

  void instruction() {
    PtxInstruction i;
    if (in_.accept("@")) {
      i.guard_negated = in_.accept("!");
      const std::string name(in_.word());
      i.guard = find(&Scope::registers, name, scope_);
      if (i.guard < 0) in_.error("unknown predicate '" + name + "'");
    }
    i.line = in_.peek().line;
    i.opcode = in_.word();
    while (!in_.accept(";")) {
      if (in_.accept("(")) {
        i.lists.emplace_back();
        while (!in_.accept(")")) {
          i.lists.back().push_back(operand());
          in_.accept(",");
        }
      } else {
        i.operands.push_back(operand());
      }
      if (!in_.is(";")) in_.expect(",");
    }
    f_.body.push_back(std::move(i));
  }

  PtxOperand operand() {
    PtxOperand op = simple_operand();
    if (!in_.accept("|")) return op;
    PtxOperand pair;
    pair.kind = PtxOperand::Kind::Pair;
    pair.parts.push_back(std::move(op));
    pair.parts.push_back(simple_operand());
    return pair;
  }

  PtxOperand simple_operand() {
    PtxOperand op;
    if (in_.accept("!")) {
      op = simple_operand();
      op.negated = true;
    } else if (in_.accept("{")) {
      op.kind = PtxOperand::Kind::Vector;
      while (!in_.accept("}")) {
        op.parts.push_back(simple_operand());
        in_.accept(",");
      }
    } else if (in_.accept("[")) {
      address(op);
    } else if (in_.accept("_")) {
      op.kind = PtxOperand::Kind::Sink;
    } else if (in_.peek().kind == Token::Kind::Number || in_.is("-")) {
      op = parse_number(in_);
    } else {
      op = name(in_.word());
      if (op.kind == PtxOperand::Kind::Variable && in_.accept("+")) op.integer = in_.integer();
    }
    return op;
  }

  void address(PtxOperand& op) {
    op.kind = PtxOperand::Kind::Address;
    if (in_.peek().kind == Token::Kind::Number || in_.is("-")) {
      op.integer = in_.integer();
    } else {
      op.parts.push_back(name(in_.word()));
      while (!in_.is("]") && !in_.is(",")) {
        const bool minus = in_.is("-");
        if (!minus) in_.expect("+");
        op.integer += in_.integer();
      }
      while (in_.accept(",")) op.parts.push_back(simple_operand());  // coordinates of a bulk tensor copy
    }
    in_.expect("]");
  }

  PtxOperand name(std::string_view text) {
    PtxOperand op;
    if (op.index = find(&Scope::registers, text, scope_); op.index >= 0) {
      op.kind = PtxOperand::Kind::Register;
    } else if (op.index = find(&Scope::variables, text, scope_); op.index >= 0) {
      op.kind = PtxOperand::Kind::Variable;
    } else if (const auto it = module_.variable_index.find(text); it != module_.variable_index.end()) {
      op.kind = PtxOperand::Kind::Variable;
      op.index = it->second;
      op.global = true;
    } else if (text[0] == '%') {
      op.kind = PtxOperand::Kind::Special;
      op.name = text.substr(1);
    } else if (text == "WARP_SZ") {
      op.kind = PtxOperand::Kind::Integer;
      op.integer = 32;
    } else if (module_.function_index.count(text) || text == f_.name) {
      op.kind = PtxOperand::Kind::Function;
      op.name = text;
    } else {
      return label_reference(text);
    }
    return op;
  }

  // Labels may be used before they stand, so they stay names with their scope until the body is read.
  PtxOperand label_reference(std::string_view text) {
    PtxOperand op;
    op.kind = PtxOperand::Kind::Label;
    op.name = text;
    op.integer = scope_;
    return op;
  }

  void resolve_label(PtxOperand& op, int line) {
    for (auto& part : op.parts) resolve_label(part, line);
    if (op.kind != PtxOperand::Kind::Label) return;
    op.index = find(&Scope::labels, op.name, static_cast<int>(op.integer));
    if (op.index < 0) throw PtxError(line, "unknown name '" + op.name + "'");
  }

  TokenStream& in_;
  const PtxModule& module_;
  PtxFunction& f_;
  std::vector<Scope> scopes_;
  int scope_ = 0;
  std::vector<TargetList> target_lists_;
};

}  // namespace

void parse_body(TokenStream& in, const PtxModule& module, PtxFunction& function) { BodyParser(in, module, function).run(); }

}  // namespace fovea::emulator
