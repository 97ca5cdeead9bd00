// Chooses handlers: everything that works on registers alone. Most opcodes are found in the registry by their own text; the methods here
// serve those whose operands need arranging.
#include <algorithm>
#include <bit>
#include <cstring>

#include "decoder.h"
#include "machine.h"

namespace fovea::emulator {

Opcode::Opcode(std::string_view text) {
  size_t at = text.find('.');
  base = text.substr(0, at);
  while (at != std::string_view::npos) {
    const size_t next = text.find('.', at + 1);
    modifiers.push_back(text.substr(at + 1, next == std::string_view::npos ? next : next - at - 1));
    at = next;
  }
}

bool Opcode::has(std::string_view modifier) const { return std::find(modifiers.begin(), modifiers.end(), modifier) != modifiers.end(); }

std::string Opcode::without(std::initializer_list<std::string_view> drop) const {
  std::string out(base);
  for (const auto m : modifiers) {
    if (std::find(drop.begin(), drop.end(), m) == drop.end()) out.append(".").append(m);
  }
  return out;
}

Selector::Selector(const LoadedModule& module, const PtxFunction& f, Program& program) : module_(module), f_(f), program_(program) {
  for (const auto& r : f.registers) {
    const int bytes = bytes_of_type(r.type);
    if (bytes > 8) throw PtxError(f.line, "register '" + r.name + "' of type ." + r.type + " is not supported");
    out_.widths.push_back(bytes == 0 ? 0 : bytes <= 4 ? 4 : 8);
    out_.names.push_back(r.name);
  }
  const auto place = [](uint32_t& top, const PtxVariable& v) {
    top = (top + static_cast<uint32_t>(v.align) - 1) / static_cast<uint32_t>(v.align) * static_cast<uint32_t>(v.align);
    const uint32_t at = top;
    top += static_cast<uint32_t>(v.bytes);
    return static_cast<int64_t>(at);
  };
  for (size_t k = 0; k < f.variables.size(); ++k) {
    const PtxVariable& v = f.variables[k];
    uint32_t& top = v.space == Space::Shared ? program.static_shared_bytes
                    : k < f.params.size()    ? program.param_bytes
                                             : program.local_bytes;
    variable_offset_.push_back(place(top, v));
  }
  const auto& globals = module.ptx->variables;
  for (size_t k = 0; k < globals.size(); ++k) {
    if (globals[k].space == Space::Shared && !globals[k].external)
      module_shared_offset_[static_cast<int>(k)] = place(program.static_shared_bytes, globals[k]);
    if (globals[k].space == Space::Const) program.const_bytes += static_cast<uint32_t>(globals[k].bytes);
  }
  program.static_shared_bytes = (program.static_shared_bytes + 15) & ~15u;
  for (size_t k = 0; k < globals.size(); ++k) {
    if (globals[k].space == Space::Shared && globals[k].external) module_shared_offset_[static_cast<int>(k)] = program.static_shared_bytes;
  }
  program.local_bytes = (program.local_bytes + 15) & ~15u;
}

void Selector::error(const std::string& message) const { throw PtxError(now_->line, message + " (" + now_->opcode + ")"); }

const OpEntry& Selector::entry(const std::string& key) const {
  const OpEntry* e = registry().find(key);
  if (!e) error("unknown instruction");
  return *e;
}

Draft& Selector::emit(const OpEntry& e) {
  Draft& d = out_.code.emplace_back();
  d.instr.fn = e.fn;
  d.instr.cls = e.cls;
  d.instr.line = static_cast<uint32_t>(now_->line);
  d.destinations = e.destinations;
  d.guard = now_->guard;
  d.guard_negated = now_->guard_negated;
  return d;
}

void Selector::add_operands(const OpEntry& e, const std::vector<const PtxOperand*>& operands) {
  if (operands.size() != e.count) error("expected " + std::to_string(e.count) + " operands, got " + std::to_string(operands.size()));
  for (size_t k = 0; k < operands.size(); ++k) {
    DraftOperand op = operand(*operands[k], e.kinds[k], k < e.destinations);
    out_.code.back().ops.push_back(op);
  }
}

int Selector::register_bytes(const PtxOperand& op) const { return op.kind == PtxOperand::Kind::Register ? out_.widths[op.index] : 4; }

DraftOperand Selector::constant(uint64_t bits, int bytes) {
  const auto [it, added] = constants_.try_emplace({bits, bytes}, 0);
  if (added) {
    const size_t at = (program_.constants.size() + 63) & ~size_t{63};
    program_.constants.resize(at + static_cast<size_t>(bytes * kLanes));
    for (int l = 0; l < kLanes; ++l)
      std::memcpy(program_.constants.data() + at + static_cast<size_t>(l * bytes), &bits, static_cast<size_t>(bytes));
    it->second = static_cast<int>(at);
  }
  return {DraftOperand::Kind::Constant, false, it->second};
}

DraftOperand Selector::scratch(int bytes) {
  out_.widths.push_back(static_cast<uint8_t>(bytes));
  out_.names.push_back("_");
  return {DraftOperand::Kind::Register, false, static_cast<int>(out_.widths.size()) - 1};
}

DraftOperand Selector::special(const std::string& name) {
  static const std::map<std::string, Special> table = {{"tid.x", Special::TidX},
                                                       {"tid.y", Special::TidY},
                                                       {"tid.z", Special::TidZ},
                                                       {"ntid.x", Special::NtidX},
                                                       {"ntid.y", Special::NtidY},
                                                       {"ntid.z", Special::NtidZ},
                                                       {"ctaid.x", Special::CtaidX},
                                                       {"ctaid.y", Special::CtaidY},
                                                       {"ctaid.z", Special::CtaidZ},
                                                       {"nctaid.x", Special::NctaidX},
                                                       {"nctaid.y", Special::NctaidY},
                                                       {"nctaid.z", Special::NctaidZ},
                                                       {"laneid", Special::LaneId},
                                                       {"warpid", Special::WarpId},
                                                       {"nwarpid", Special::NwarpId},
                                                       {"smid", Special::SmId},
                                                       {"nsmid", Special::NsmId},
                                                       {"gridid", Special::GridId},
                                                       {"lanemask_eq", Special::LanemaskEq},
                                                       {"lanemask_lt", Special::LanemaskLt},
                                                       {"lanemask_le", Special::LanemaskLe},
                                                       {"lanemask_gt", Special::LanemaskGt},
                                                       {"lanemask_ge", Special::LanemaskGe},
                                                       {"dynamic_smem_size", Special::DynamicSmem},
                                                       {"total_smem_size", Special::TotalSmem},
                                                       {"tid.w", Special::Zero}};
  const auto found = table.find(name);
  if (found == table.end()) error("unknown special register '%" + name + "'");
  const auto [it, added] = out_.specials.try_emplace(found->second, 0);
  if (added) {
    out_.widths.push_back(4);
    out_.names.push_back("%" + name);
    it->second = static_cast<int>(out_.widths.size()) - 1;
  }
  return {DraftOperand::Kind::Register, false, it->second};
}

DraftOperand Selector::operand(const PtxOperand& op, Kind kind, bool destination) {
  const int bytes = kind == Kind::Pred ? 0 : kind == Kind::B64 || kind == Kind::F64 ? 8 : 4;
  switch (op.kind) {
    case PtxOperand::Kind::Register:
      if (out_.widths[op.index] != bytes) {
        error("register '" + out_.names[op.index] + "' has " + std::to_string(8 * out_.widths[op.index]) + " bits, the operand needs " +
              std::to_string(8 * bytes));
      }
      if (op.negated && (bytes || destination)) error("'!' stands only before a predicate that is read");
      return {bytes ? DraftOperand::Kind::Register : DraftOperand::Kind::Predicate, op.negated, op.index};
    case PtxOperand::Kind::Sink:
      if (!destination) error("'_' can only be written");
      return bytes ? scratch(bytes) : fixed_predicate(kScratchPredicate);
    default: break;
  }
  if (destination) error("the destination must be a register");
  switch (op.kind) {
    case PtxOperand::Kind::Special: {
      const DraftOperand s = special(op.name);
      if (bytes != 4) error("special register '%" + op.name + "' has 32 bits");
      return s;
    }
    case PtxOperand::Kind::Integer:
      if (bytes == 0) return fixed_predicate(kTruePredicate, op.integer == 0);
      if (kind == Kind::F32) return constant(std::bit_cast<uint32_t>(static_cast<float>(op.integer)), 4);
      if (kind == Kind::F64) return constant(std::bit_cast<uint64_t>(static_cast<double>(op.integer)), 8);
      return constant(bytes == 4 ? static_cast<uint32_t>(op.integer) : static_cast<uint64_t>(op.integer), bytes);
    case PtxOperand::Kind::Float32:
    case PtxOperand::Kind::Float64:
      if (kind == Kind::F32) {
        return constant(
            op.kind == PtxOperand::Kind::Float32 ? static_cast<uint32_t>(op.integer) : std::bit_cast<uint32_t>(static_cast<float>(op.real)),
            4);
      }
      if (kind == Kind::F64) return constant(std::bit_cast<uint64_t>(op.real), 8);
      return constant(bytes == 4 ? static_cast<uint32_t>(op.integer) : static_cast<uint64_t>(op.integer), bytes);
    case PtxOperand::Kind::Variable: {
      Space space;
      const uint64_t at = address_of_variable(op, space);
      return constant(bytes == 4 ? static_cast<uint32_t>(at) : at, bytes);
    }
    default: error("unexpected operand");
  }
}

void Selector::generic(const PtxInstruction& in, const Opcode& op) {
  const OpEntry* e = registry().find(in.opcode);
  if (!e) e = registry().find(op.without({"rn"}));
  if (!e && op.base == "cvt") e = registry().find(op.without({"ftz"}));
  if (!e && op.base == "cvt") e = registry().find(op.without({"satfinite"}));
  if (!e) error("unknown instruction");
  emit(*e);
  std::vector<const PtxOperand*> operands;
  for (const auto& o : in.operands) operands.push_back(&o);
  add_operands(*e, operands);
}

// setp.cmp[.bool][.ftz].type p[|q], a, b[, c]
void Selector::compare(const PtxInstruction& in, const Opcode& op) {
  std::string type(op.last());
  if (type[0] == 'b' && type[1] != 'f') type[0] = 'u';
  std::string cmp(op.modifiers[0]);
  if (type[0] == 'u') {
    for (const auto& [from, to] : {std::pair{"lo", "lt"}, {"ls", "le"}, {"hi", "gt"}, {"hs", "ge"}}) {
      if (cmp == from) cmp = to;
    }
  }
  const OpEntry& e = entry("setp." + cmp + "." + type);
  Draft& d = emit(e);
  d.instr.mode = op.has("and") ? 1 : op.has("or") ? 2 : op.has("xor") ? 3 : 0;
  if (in.operands.size() != (d.instr.mode ? 4 : 3)) error("wrong number of operands");
  const PtxOperand& dest = in.operands[0];
  PtxOperand sink, yes;
  yes.kind = PtxOperand::Kind::Integer;
  yes.integer = 1;
  const bool pair = dest.kind == PtxOperand::Kind::Pair;
  add_operands(e, {pair ? &dest.parts[0] : &dest, pair ? &dest.parts[1] : &sink, &in.operands[1], &in.operands[2],
                   d.instr.mode ? &in.operands[3] : &yes});
}

void Selector::set(const PtxInstruction& in, const Opcode& op) {
  const OpEntry& e = entry(op.without({"ftz"}));
  emit(e);
  add_operands(e, {&in.operands[0], &in.operands[1], &in.operands[2]});
}

void Selector::select_value(const PtxInstruction& in, const Opcode& op) {
  const std::string_view type = op.last();
  if (type == "pred") return generic(in, op);
  const int bytes = bytes_of_type(type);
  const bool real = type == "f32" || type == "f64";
  const OpEntry& e = entry(std::string("selp.") + (real ? "f" : "") + (bytes == 8 ? "8" : "4"));
  emit(e).selects = true;
  add_operands(e, {&in.operands[0], &in.operands[1], &in.operands[2], &in.operands[3]});
}

void Selector::move(const PtxInstruction& in, const Opcode& op) {
  const std::string_view type = op.last();
  if (in.operands.size() != 2) error("expected 2 operands");
  if (in.operands[0].kind == PtxOperand::Kind::Vector || in.operands[1].kind == PtxOperand::Kind::Vector) return move_vector(in, op);
  if (type == "pred") return generic(in, op);
  const PtxOperand& source = in.operands[1];
  if (source.kind == PtxOperand::Kind::Special && (source.name.rfind("clock", 0) == 0 || source.name.rfind("globaltimer", 0) == 0)) {
    const OpEntry& e = entry(bytes_of_type(type) == 8 ? "clock.8" : "clock.4");
    emit(e);
    return add_operands(e, {&in.operands[0]});
  }
  const bool real = type == "f32" || type == "f64";
  const OpEntry& e = entry(std::string("mov.") + (real ? "f" : "") + (bytes_of_type(type) == 8 ? "8" : "4"));
  emit(e).copies = source.kind == PtxOperand::Kind::Register;
  add_operands(e, {&in.operands[0], &source});
}

void Selector::move_vector(const PtxInstruction& in, const Opcode& op) {
  const bool packs = in.operands[1].kind == PtxOperand::Kind::Vector;
  const PtxOperand& vector = in.operands[packs ? 1 : 0];
  const PtxOperand& whole = in.operands[packs ? 0 : 1];
  const int parts = static_cast<int>(vector.parts.size());
  const std::string shape = std::to_string(parts) + "x" + std::to_string(8 * bytes_of_type(op.last()) / parts);
  const OpEntry& e = entry((packs ? "pack." : "unpack.") + shape);
  emit(e);
  std::vector<const PtxOperand*> operands;
  if (packs) operands.push_back(&whole);
  for (const auto& p : vector.parts) operands.push_back(&p);
  if (!packs) operands.push_back(&whole);
  add_operands(e, operands);
}

// cvta[.to].space.u64; global and constant memory have the same addresses in the generic space.
void Selector::convert_address(const PtxInstruction& in, const Opcode& op) {
  const OpEntry& e = entry("cvta");
  Draft& d = emit(e);
  d.instr.mode = op.has("to");
  d.instr.imm = static_cast<int64_t>(op.has("shared") || op.has("shared::cta") ? kSharedWindow
                                     : op.has("local")                         ? kLocalWindow
                                     : op.has("param")                         ? kParamWindow
                                                                               : 0);
  if (op.last() != "u64") error("only 64-bit addresses are supported");
  add_operands(e, {&in.operands[0], &in.operands[1]});
}

void Selector::is_space(const PtxInstruction& in, const Opcode& op) {
  const OpEntry& e = entry("isspacep");
  Draft& d = emit(e);
  d.instr.space = op.has("global") || op.has("const") ? Space::Global : Space::Shared;
  d.instr.imm = static_cast<int64_t>(op.has("local") ? kLocalWindow : op.has("param") ? kParamWindow : kSharedWindow);
  add_operands(e, {&in.operands[0], &in.operands[1]});
}

void Selector::carry(const PtxInstruction& in, const Opcode& op) {
  const bool carry_in = op.base == "addc" || op.base == "subc" || op.base == "madc", carry_out = op.has("cc");
  if (!carry_in && !carry_out) return generic(in, op);
  const bool mad = op.base == "mad" || op.base == "madc";
  const OpEntry& e = entry(mad ? "madcarry." + std::string(op.last()) : bytes_of_type(op.last()) == 8 ? "carry.64" : "carry.32");
  Draft& d = emit(e);
  d.instr.mode = static_cast<uint8_t>((mad ? op.has("hi") : op.base[0] == 's') | carry_in << 1 | carry_out << 2);
  std::vector<const PtxOperand*> operands;
  for (const auto& o : in.operands) operands.push_back(&o);
  add_operands(e, operands);
}

void Selector::lop3(const PtxInstruction& in, const Opcode& op) {
  if (op.modifiers.size() != 1 || in.operands.size() != 5) error("unknown instruction");
  const OpEntry& e = entry("lop3.b32");
  emit(e).instr.imm = in.operands[4].integer;
  add_operands(e, {&in.operands[0], &in.operands[1], &in.operands[2], &in.operands[3]});
}

void Selector::test_property(const PtxInstruction& in, const Opcode& op) {
  const OpEntry& e = entry("testp." + std::string(op.last()));
  Draft& d = emit(e);
  constexpr std::string_view names[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
  const auto* found = std::find(std::begin(names), std::end(names), op.modifiers[0]);
  if (found == std::end(names)) error("unknown instruction");
  d.instr.mode = static_cast<uint8_t>(found - names);
  add_operands(e, {&in.operands[0], &in.operands[1]});
}

void Selector::nothing(const PtxInstruction&, const Opcode&) {}

const std::map<std::string_view, Selector::Method>& Selector::methods() {
  static const std::map<std::string_view, Method> table = {{"setp", &Selector::compare},
                                                           {"set", &Selector::set},
                                                           {"selp", &Selector::select_value},
                                                           {"mov", &Selector::move},
                                                           {"cvta", &Selector::convert_address},
                                                           {"isspacep", &Selector::is_space},
                                                           {"lop3", &Selector::lop3},
                                                           {"testp", &Selector::test_property},
                                                           {"add", &Selector::carry},
                                                           {"addc", &Selector::carry},
                                                           {"sub", &Selector::carry},
                                                           {"subc", &Selector::carry},
                                                           {"mad", &Selector::carry},
                                                           {"madc", &Selector::carry},
                                                           {"membar", &Selector::nothing},
                                                           {"fence", &Selector::nothing},
                                                           {"prefetch", &Selector::nothing},
                                                           {"prefetchu", &Selector::nothing},
                                                           {"applypriority", &Selector::nothing},
                                                           {"discard", &Selector::nothing},
                                                           {"nanosleep", &Selector::nothing},
                                                           {"setmaxnreg", &Selector::nothing},
                                                           {"griddepcontrol", &Selector::nothing},
                                                           {"pmevent", &Selector::nothing},
                                                           {"bra", &Selector::branch},
                                                           {"brx", &Selector::branch_indexed},
                                                           {"exit", &Selector::leave},
                                                           {"ret", &Selector::leave},
                                                           {"trap", &Selector::leave},
                                                           {"bar", &Selector::barrier},
                                                           {"barrier", &Selector::barrier},
                                                           {"shfl", &Selector::shuffle},
                                                           {"vote", &Selector::vote},
                                                           {"match", &Selector::match},
                                                           {"redux", &Selector::redux},
                                                           {"activemask", &Selector::active_mask},
                                                           {"elect", &Selector::elect},
                                                           {"fovea_assert", &Selector::assert_fail},
                                                           {"ld", &Selector::load},
                                                           {"ldu", &Selector::load},
                                                           {"st", &Selector::store},
                                                           {"atom", &Selector::atomic},
                                                           {"red", &Selector::atomic},
                                                           {"cp", &Selector::async_copy},
                                                           {"mbarrier", &Selector::mbarrier},
                                                           {"ldmatrix", &Selector::load_matrix},
                                                           {"stmatrix", &Selector::store_matrix},
                                                           {"mma", &Selector::mma}};
  return table;
}

void Selector::instruction(const PtxInstruction& in) {
  now_ = &in;
  const Opcode op(in.opcode);
  const auto found = methods().find(op.base);
  (this->*(found == methods().end() ? &Selector::generic : found->second))(in, op);
}

DraftProgram Selector::run() {
  for (const PtxInstruction& in : f_.body) {
    if (in.label >= 0) {
      label_at_[in.label] = static_cast<int>(out_.code.size());
    } else {
      instruction(in);
    }
  }
  PtxInstruction end;
  end.line = f_.body.empty() ? f_.line : f_.body.back().line;
  end.opcode = "exit";
  now_ = &end;
  leave(end, Opcode(end.opcode));
  for (Draft& d : out_.code) {
    for (int& t : d.targets) t = label_at_.at(t);
  }
  return std::move(out_);
}

std::shared_ptr<const Program> decode(const LoadedModule& module, const PtxFunction& kernel) {
  auto program = std::make_shared<Program>();
  program->name = kernel.name;
  program->module = module.ptx;
  if (kernel.max_threads) program->max_threads = kernel.max_threads;
  const PtxFunction flat = inline_calls(*module.ptx, kernel);
  DraftProgram draft = Selector(module, flat, *program).run();
  const size_t constant_bytes = program->constants.size();
  program->constants.resize(constant_bytes + 128);
  std::memmove(program->constants.data() + (-reinterpret_cast<uintptr_t>(program->constants.data()) & 63), program->constants.data(),
               constant_bytes);
  allocate_registers(draft, *program);
  return program;
}

}  // namespace fovea::emulator
