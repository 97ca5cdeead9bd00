// Chooses handlers: loads, stores, atomics, asynchronous copies, matrix fragments.
#include <bit>

#include "access.h"
#include "decoder.h"

namespace fovea::emulator {

namespace {

InstrClass class_of(Space space) {
  switch (space) {
    case Space::Shared: return InstrClass::Shared;
    case Space::Local: return InstrClass::Local;
    case Space::Param: return InstrClass::Move;
    default: return InstrClass::Global;
  }
}

std::string element_of(std::string_view type, int register_bytes) {
  const int bytes = bytes_of_type(type);
  const bool is_signed = type[0] == 's' && 8 < 8 * register_bytes && (bytes < 4 || (bytes == 4 && register_bytes == 8));
  return (is_signed ? "s" : "u") + std::to_string(8 * bytes);
}

}  // namespace

Space Selector::space_of(const Opcode& op) const {
  for (const auto m : op.modifiers) {
    if (m == "global" || m == "const") return Space::Global;
    if (m == "shared" || m == "shared::cta") return Space::Shared;
    if (m == "shared::cluster") error("clusters are not supported");
    if (m == "local") return Space::Local;
    if (m == "param" || m == "param::entry" || m == "param::func") return Space::Param;
  }
  return Space::Generic;
}

uint64_t Selector::address_of_variable(const PtxOperand& op, Space& space) const {
  const PtxVariable& v = op.global ? module_.ptx->variables[op.index] : f_.variables[op.index];
  space = v.space == Space::Const ? Space::Global : v.space;
  uint64_t at;
  if (v.space == Space::Shared) {
    at = static_cast<uint64_t>(op.global ? module_shared_offset_.at(op.index) : variable_offset_[op.index]);
  } else if (op.global) {
    at = module_.addresses[op.index];
    if (!at) error("variable '" + v.name + "' is not defined in this module");
  } else {
    at = static_cast<uint64_t>(variable_offset_[op.index]);
    if (static_cast<size_t>(op.index) >= f_.params.size()) space = Space::Local;
  }
  return at + static_cast<uint64_t>(op.integer);
}

DraftOperand Selector::address(const PtxOperand& op, Space& space, int64_t& displacement, bool& wide) {
  if (op.kind != PtxOperand::Kind::Address) error("expected an address in brackets");
  displacement = op.integer;
  wide = true;
  if (op.parts.empty()) return constant(0, 8);
  const PtxOperand& base = op.parts[0];
  if (base.kind == PtxOperand::Kind::Variable) {
    Space of_variable;
    const uint64_t at = address_of_variable(base, of_variable);
    if (space == Space::Generic || space == Space::Param) space = of_variable;
    return constant(at, 8);
  }
  if (base.kind != PtxOperand::Kind::Register || out_.widths[base.index] == 0) error("an address must be a register or a variable");
  wide = out_.widths[base.index] == 8;
  if (!wide && space != Space::Shared && space != Space::Local && space != Space::Param) error("a global address needs a 64-bit register");
  return {DraftOperand::Kind::Register, false, base.index};
}

void Selector::watch_shared(Space space, int bytes) {
  if (space != Space::Shared && space != Space::Generic) return;
  const int log2 = std::countr_zero(static_cast<unsigned>(bytes));
  if (log2 < program_.shared_granule_log2) program_.shared_granule_log2 = log2;
}

void Selector::load(const PtxInstruction& in, const Opcode& op) {
  const std::string_view type = op.last();
  const int bytes = bytes_of_type(type);
  if (bytes <= 0 || in.operands.size() < 2) error("unknown instruction");
  const PtxOperand& dest = in.operands[0];
  const std::vector<PtxOperand> single{dest};
  const auto& parts = dest.kind == PtxOperand::Kind::Vector ? dest.parts : single;
  int width = 0;
  for (const auto& p : parts) {
    if (p.kind == PtxOperand::Kind::Register) width = register_bytes(p);
  }
  if (width == 0) width = bytes == 8 ? 8 : 4;
  const OpEntry& e = entry("ld." + element_of(type, width) + "." + std::to_string(width));
  Draft& d = emit(e);
  Space space = space_of(op);
  bool wide;
  const DraftOperand base = address(in.operands[1], space, d.instr.imm, wide);
  d.instr.space = space;
  d.instr.cls = class_of(space);
  d.instr.vector = static_cast<uint8_t>(parts.size());
  d.instr.bytes = static_cast<uint8_t>(bytes);
  d.instr.mode =
      static_cast<uint8_t>((wide ? kWideAddress : 0) | (op.has("volatile") || op.has("relaxed") || op.has("acquire") ? kStrong : 0));
  d.destinations = static_cast<int>(parts.size());
  for (const auto& p : parts) {
    const DraftOperand o = operand(p, width == 8 ? Kind::B64 : Kind::B32, true);
    out_.code.back().ops.push_back(o);
  }
  out_.code.back().ops.push_back(base);
  watch_shared(space, bytes * static_cast<int>(parts.size()));
}

void Selector::store(const PtxInstruction& in, const Opcode& op) {
  if (op.has("async")) error("unknown instruction");
  const std::string_view type = op.last();
  const int bytes = bytes_of_type(type);
  if (bytes <= 0 || in.operands.size() < 2) error("unknown instruction");
  const PtxOperand& source = in.operands[1];
  const std::vector<PtxOperand> single{source};
  const auto& parts = source.kind == PtxOperand::Kind::Vector ? source.parts : single;
  int width = bytes == 8 ? 8 : 4;
  for (const auto& p : parts) {
    if (p.kind == PtxOperand::Kind::Register) width = register_bytes(p);
  }
  const OpEntry& e = entry("st.u" + std::to_string(8 * bytes) + "." + std::to_string(width));
  Draft& d = emit(e);
  Space space = space_of(op);
  bool wide;
  const DraftOperand base = address(in.operands[0], space, d.instr.imm, wide);
  if (space == Space::Param) error("kernel parameters can't be written");
  d.instr.space = space;
  d.instr.cls = class_of(space);
  d.instr.vector = static_cast<uint8_t>(parts.size());
  d.instr.bytes = static_cast<uint8_t>(bytes);
  d.instr.mode =
      static_cast<uint8_t>((wide ? kWideAddress : 0) | (op.has("volatile") || op.has("relaxed") || op.has("release") ? kStrong : 0));
  d.ops.push_back(base);
  const Kind kind = type == "f32" ? Kind::F32 : type == "f64" ? Kind::F64 : width == 8 ? Kind::B64 : Kind::B32;
  for (const auto& p : parts) {
    const DraftOperand o = operand(p, kind, false);
    out_.code.back().ops.push_back(o);
  }
  watch_shared(space, bytes * static_cast<int>(parts.size()));
}

// atom[.sem][.scope][.space].op.type d, [a], b[, c]; red without d
void Selector::atomic(const PtxInstruction& in, const Opcode& op) {
  if (op.has("async")) error("unknown instruction");
  std::string key =
      op.without({"relaxed", "acquire", "release", "acq_rel", "cta", "gpu", "sys", "cluster", "global", "shared", "shared::cta", "noftz"});
  const std::string_view type = op.last();
  if (op.has("and") || op.has("or") || op.has("xor") || op.has("exch") || op.has("cas"))
    key = key.substr(0, key.rfind('.') + 1) + "b" + std::to_string(8 * bytes_of_type(type));
  const OpEntry& e = entry(key);
  Draft& d = emit(e);
  const bool returns = op.base == "atom";
  Space space = space_of(op);
  bool wide;
  const size_t at = returns ? 1 : 0;
  if (in.operands.size() <= at + 1) error("wrong number of operands");
  const DraftOperand base = address(in.operands[at], space, d.instr.imm, wide);
  d.instr.space = space;
  d.instr.mode = wide ? kWideAddress : 0;
  d.instr.bytes = static_cast<uint8_t>(bytes_of_type(type));
  watch_shared(space, bytes_of_type(type));
  std::vector<DraftOperand> ops;
  if (returns) ops.push_back(operand(in.operands[0], e.kinds[0], true));
  ops.push_back(base);
  for (size_t k = at + 1; k < in.operands.size(); ++k) ops.push_back(operand(in.operands[k], e.kinds[0], false));
  if (in.operands.size() - at - 1 != static_cast<size_t>(e.count) - at) error("wrong number of operands");
  out_.code.back().ops = std::move(ops);
}

// cp.async.{ca,cg}.shared.global[.L2::..] [to], [from], bytes[, source bytes | ignore]; commit_group; wait_group n; wait_all
void Selector::async_copy(const PtxInstruction& in, const Opcode& op) {
  if (op.modifiers.empty() || op.modifiers[0] != "async" || op.has("bulk") || op.has("mbarrier")) error("unknown instruction");
  if (op.has("commit_group")) {
    emit(entry("cp.async.commit_group"));
    return;
  }
  if (op.has("wait_group") || op.has("wait_all")) {
    Draft& d = emit(entry("cp.async.wait_group"));
    d.instr.mode = op.has("wait_all");
    d.instr.imm = d.instr.mode ? 0 : in.operands.at(0).integer;
    return;
  }
  Draft& d = emit(entry("cp.async"));
  if (in.operands.size() < 3 || in.operands[2].kind != PtxOperand::Kind::Integer) error("expected a target, a source and a size");
  const int64_t bytes = in.operands[2].integer;
  if (bytes != 16 && (op.has("cg") || (bytes != 4 && bytes != 8))) error("a copy of " + std::to_string(bytes) + " bytes is not possible");
  Space to_space = Space::Shared, from_space = Space::Global;
  int64_t to_at = 0, from_at = 0;
  bool to_wide, from_wide;
  const DraftOperand to = address(in.operands[0], to_space, to_at, to_wide), from = address(in.operands[1], from_space, from_at, from_wide);
  d.instr.bytes = static_cast<uint8_t>(bytes);
  d.instr.mode = to_wide ? kWideAddress : 0;
  d.instr.imm = to_at << 32 | static_cast<int64_t>(static_cast<uint32_t>(from_at));
  std::vector<DraftOperand> ops{to, from};
  if (in.operands.size() > 3) {
    const PtxOperand& extra = in.operands[3];
    const bool predicate = extra.kind == PtxOperand::Kind::Register && out_.widths[extra.index] == 0;
    out_.code.back().instr.target = predicate;
    ops.push_back(operand(extra, predicate ? Kind::Pred : Kind::B32, false));
  }
  out_.code.back().ops = std::move(ops);
  watch_shared(Space::Shared, static_cast<int>(bytes));
}

// mbarrier.init [a], n; inval [a]; arrive state, [a][, n]; test_wait / try_wait[.parity] p, [a], state or parity
void Selector::mbarrier(const PtxInstruction& in, const Opcode& op) {
  if (op.has("shared::cluster") || op.has("cluster") || op.has("expect_tx") || op.has("complete_tx") || op.has("noComplete"))
    error("unknown instruction");
  const bool init = op.has("init") || op.has("inval"), arrive = op.has("arrive"), parity = op.has("parity");
  if (!init && !arrive && !op.has("test_wait") && !op.has("try_wait")) error("unknown instruction");
  Draft& d = emit(entry(init ? "mbarrier.init" : arrive ? "mbarrier.arrive" : "mbarrier.wait"));
  Space space = Space::Shared;
  bool wide;
  const size_t at = init ? 0 : 1;
  if (in.operands.size() <= at) error("wrong number of operands");
  const DraftOperand base = address(in.operands[at], space, d.instr.imm, wide);
  d.instr.mode = static_cast<uint8_t>((wide ? kWideAddress : 0) | (op.has("inval") || parity ? 16 : 0));
  std::vector<DraftOperand> ops;
  if (!init) ops.push_back(operand(in.operands[0], arrive ? Kind::B64 : Kind::Pred, true));
  ops.push_back(base);
  if (in.operands.size() > at + 1) {
    ops.push_back(operand(in.operands[at + 1], !init && !arrive && !parity ? Kind::B64 : Kind::B32, false));
  } else if (arrive || op.has("inval")) {
    ops.push_back(constant(1, 4));
  } else {
    error("wrong number of operands");
  }
  out_.code.back().ops = std::move(ops);
}

void Selector::load_matrix(const PtxInstruction& in, const Opcode& op) {
  if (!op.has("m8n8") || op.last() != "b16") error("unknown instruction");
  Draft& d = emit(entry("ldmatrix"));
  const PtxOperand& dest = in.operands.at(0);
  const size_t count = op.has("x4") ? 4 : op.has("x2") ? 2 : 1;
  const std::vector<PtxOperand> single{dest};
  const auto& parts = dest.kind == PtxOperand::Kind::Vector ? dest.parts : single;
  if (parts.size() != count) error("wrong number of registers");
  Space space = space_of(op);
  bool wide;
  const DraftOperand base = address(in.operands.at(1), space, d.instr.imm, wide);
  d.instr.space = space;
  d.instr.vector = static_cast<uint8_t>(count);
  d.instr.mode = static_cast<uint8_t>((wide ? kWideAddress : 0) | (op.has("trans") ? 16 : 0));
  d.destinations = static_cast<int>(count);
  for (const auto& p : parts) {
    const DraftOperand o = operand(p, Kind::B32, true);
    out_.code.back().ops.push_back(o);
  }
  out_.code.back().ops.push_back(base);
}

void Selector::store_matrix(const PtxInstruction& in, const Opcode& op) {
  if (!op.has("m8n8") || op.last() != "b16") error("unknown instruction");
  Draft& d = emit(entry("stmatrix"));
  const PtxOperand& source = in.operands.at(1);
  const size_t count = op.has("x4") ? 4 : op.has("x2") ? 2 : 1;
  const std::vector<PtxOperand> single{source};
  const auto& parts = source.kind == PtxOperand::Kind::Vector ? source.parts : single;
  if (parts.size() != count) error("wrong number of registers");
  Space space = space_of(op);
  bool wide;
  d.ops.push_back(address(in.operands.at(0), space, d.instr.imm, wide));
  d.instr.space = space;
  d.instr.vector = static_cast<uint8_t>(count);
  d.instr.mode = static_cast<uint8_t>((wide ? kWideAddress : 0) | (op.has("trans") ? 16 : 0));
  for (const auto& p : parts) {
    const DraftOperand o = operand(p, Kind::B32, false);
    out_.code.back().ops.push_back(o);
  }
}

// mma.sync.aligned.shape.row.col[.satfinite].d.a.b.c {d}, {a}, {b}, {c}
void Selector::mma(const PtxInstruction& in, const Opcode& op) {
  if (!op.has("row") || !op.has("col")) error("unknown instruction");
  const OpEntry& e = entry(op.without({"sync", "aligned", "row", "col"}));
  Draft& d = emit(e);
  if (in.operands.size() != 4) error("expected 4 operands");
  for (size_t k = 0; k < 4; ++k) {
    const PtxOperand& v = in.operands[k];
    const std::vector<PtxOperand> single{v};
    const bool real = (k == 0 || k == 3) && op.modifiers[op.modifiers.size() - 4] == "f32";
    const auto& parts = v.kind == PtxOperand::Kind::Vector ? v.parts : single;
    const bool half = op.has("m16n8k8") ? !op.has("tf32") : op.has("m16n8k4");
    const bool small = half || (op.has("m16n8k16") && op.has("s32"));
    const size_t acc = op.modifiers[op.modifiers.size() - 4] == "f16" ? 2 : 4;
    const size_t expected = k == 1 ? (small ? 2 : 4) : k == 2 ? (small ? 1 : 2) : acc;
    if (parts.size() != expected) error("wrong number of registers");
    if (k == 0) d.destinations = static_cast<int>(parts.size());
    for (const auto& p : parts) {
      const DraftOperand o = operand(p, real ? Kind::F32 : Kind::B32, k == 0);
      out_.code.back().ops.push_back(o);
    }
  }
}

}  // namespace fovea::emulator
