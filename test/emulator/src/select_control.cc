// Chooses handlers: control flow, barriers, warp-wide instructions.
#include "decoder.h"
#include "machine.h"

namespace fovea::emulator {

void Selector::branch(const PtxInstruction& in, const Opcode&) {
  Draft& d = emit(entry("bra"));
  if (in.operands.size() != 1 || in.operands[0].kind != PtxOperand::Kind::Label) error("expected a label");
  d.targets = {in.operands[0].index};
  d.ends = in.guard < 0;
}

void Selector::branch_indexed(const PtxInstruction& in, const Opcode&) {
  const OpEntry& e = entry("brx");
  Draft& d = emit(e);
  if (in.operands.size() != 2 || in.operands[1].kind != PtxOperand::Kind::Label) error("expected an index and a list of targets");
  const auto list = f_.branch_targets.find(in.operands[1].index);
  if (list == f_.branch_targets.end()) error("the targets must be a .branchtargets list");
  d.targets = list->second;
  d.jump_table = static_cast<int>(program_.jump_tables.size());
  program_.jump_tables.emplace_back();
  d.ends = in.guard < 0;
  add_operands(e, {&in.operands[0]});
}

void Selector::leave(const PtxInstruction& in, const Opcode& op) {
  Draft& d = emit(entry(op.base == "trap" ? "trap" : "exit"));
  d.ends = in.guard < 0;
}

// bar[.cta].sync a[, b]; bar.arrive a, b; bar.red.op d, a[, b], p; bar.warp.sync mask; the same with `barrier`
void Selector::barrier(const PtxInstruction& in, const Opcode& op) {
  std::vector<const PtxOperand*> operands;
  for (const auto& o : in.operands) operands.push_back(&o);
  if (op.has("warp")) {
    const OpEntry& e = entry("bar.warp");
    emit(e);
    return add_operands(e, operands);
  }
  if (op.has("cluster")) error("clusters are not supported");
  if (op.has("red")) {
    const bool popc = op.has("popc");
    const OpEntry& e = entry(std::string("barrier.red.") + (popc ? "popc" : "pred") + (operands.size() > 3 ? ".count" : ""));
    emit(e).instr.mode = popc ? 0 : op.has("and") ? 1 : 2;
    return add_operands(e, operands);
  }
  const OpEntry& e = entry(operands.size() > 1 ? "barrier.count" : "barrier");
  emit(e).instr.mode = op.has("arrive");
  add_operands(e, operands);
}

// shfl.sync.mode.b32 d[|p], a, b, c, members
void Selector::shuffle(const PtxInstruction& in, const Opcode& op) {
  if (!op.has("sync")) error("only the .sync form is supported");
  const OpEntry& e = entry("shfl");
  Draft& d = emit(e);
  d.instr.mode = op.has("up") ? 0 : op.has("down") ? 1 : op.has("bfly") ? 2 : 3;
  const PtxOperand& dest = in.operands[0];
  const PtxOperand sink;
  const bool pair = dest.kind == PtxOperand::Kind::Pair;
  if (in.operands.size() != 5) error("expected 5 operands");
  add_operands(e, {pair ? &dest.parts[0] : &dest, pair ? &dest.parts[1] : &sink, &in.operands[1], &in.operands[2], &in.operands[3],
                   &in.operands[4]});
}

void Selector::vote(const PtxInstruction& in, const Opcode& op) {
  if (!op.has("sync")) error("only the .sync form is supported");
  const OpEntry& e = entry(op.has("ballot") ? "vote.ballot" : "vote");
  emit(e).instr.mode = op.has("all") ? 0 : op.has("any") ? 1 : 2;
  add_operands(e, {&in.operands[0], &in.operands[1], &in.operands[2]});
}

void Selector::match(const PtxInstruction& in, const Opcode& op) {
  const OpEntry& e = entry((op.has("all") ? "match.all." : "match.any.") + std::string(op.last()));
  emit(e);
  if (!op.has("all")) return add_operands(e, {&in.operands[0], &in.operands[1], &in.operands[2]});
  const PtxOperand& dest = in.operands[0];
  const PtxOperand sink;
  const bool pair = dest.kind == PtxOperand::Kind::Pair;
  add_operands(e, {pair ? &dest.parts[0] : &dest, pair ? &dest.parts[1] : &sink, &in.operands[1], &in.operands[2]});
}

void Selector::redux(const PtxInstruction& in, const Opcode& op) {
  const OpEntry& e = entry(op.without({"sync"}));
  emit(e);
  add_operands(e, {&in.operands[0], &in.operands[1], &in.operands[2]});
}

void Selector::active_mask(const PtxInstruction& in, const Opcode&) {
  const OpEntry& e = entry("activemask");
  emit(e);
  add_operands(e, {&in.operands[0]});
}

void Selector::elect(const PtxInstruction& in, const Opcode&) {
  const OpEntry& e = entry("elect");
  emit(e);
  const PtxOperand& dest = in.operands[0];
  if (dest.kind != PtxOperand::Kind::Pair) error("expected d|p");
  add_operands(e, {&dest.parts[0], &dest.parts[1], &in.operands[1]});
}

// The arguments of __assertfail are variables: read the three that the message needs.
void Selector::assert_fail(const PtxInstruction& in, const Opcode&) {
  if (in.operands.size() < 3) error("expected 5 arguments");
  std::vector<DraftOperand> values;
  for (int k = 0; k < 3; ++k) {
    const int bytes = k < 2 ? 8 : 4;
    Draft& d = emit(entry(bytes == 8 ? "ld.u64.8" : "ld.u32.4"));
    Space space;
    const uint64_t at = address_of_variable(in.operands[k], space);
    d.instr.space = space;
    d.instr.mode = 1;
    d.ops = {scratch(bytes), constant(at, 8)};
    values.push_back(d.ops[0]);
  }
  Draft& d = emit(entry("assert"));
  d.ops = values;
}

}  // namespace fovea::emulator
