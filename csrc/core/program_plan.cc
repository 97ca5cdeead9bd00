#include "core/program_plan.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "core/error.h"
#include "core/mask_operands.h"

namespace fovea {

struct ProgramPlan::Storage {
  std::vector<PlanInstr> code;
  std::vector<PlanSpread> spreads;
  std::vector<PlanScatter> scatters;
  std::vector<MaskInstr> addend_code;
  std::unique_ptr<ProgramPlan> addend;
};

namespace {

constexpr int32_t kCount = static_cast<int32_t>(MaskOp::Count);

// Number of value operands of each opcode.
int arity(int32_t op) {
  if (op >= kCount) return op == static_cast<int32_t>(FusedOp::DiffToFloat) ? 2 : 3;
  return operands_of(static_cast<MaskOp>(op));
}

// A value while it is being planned: operands are value numbers.
struct Node {
  int32_t op;
  int32_t operand[3] = {-1, -1, -1};
  int32_t immediate = 0;
  int32_t deps = 0;
  int32_t uses = 0;
  bool live = false;

  bool is(MaskOp wanted) const { return op == static_cast<int32_t>(wanted); }
  Space space() const {
    if (is(MaskOp::Score)) return Space::Score;
    if (is(MaskOp::Upstream)) return Space::Upstream;
    if (deps & DependsScore || (deps & DependsQuery && deps & DependsKey)) return Space::Both;
    return deps & DependsKey ? Space::Key : deps & DependsQuery ? Space::Query : Space::BatchHead;
  }
};

std::vector<Node> read_nodes(const MaskProgram& program, bool heads_in_lanes) {
  check(program.size > 0 && program.size <= kMaskProgramMaxSize, "ERR_INTERNAL", "mask program: size ", program.size);
  std::vector<Node> nodes(program.size);
  for (int32_t i = 0; i < program.size; i++) {
    const MaskInstr& instr = program.code[i];
    Node& node = nodes[i];
    node.op = static_cast<int32_t>(instr.op);
    check(node.op >= 0 && node.op < kCount, "ERR_INTERNAL", "mask program: opcode ", node.op);
    const int32_t given[3] = {instr.a, instr.b, instr.c};
    bool load = instr.op == MaskOp::LoadI || instr.op == MaskOp::LoadF;
    for (int k = 0; k < arity(node.op); k++) {
      node.operand[k] = load ? instr.b : given[k];
      check(node.operand[k] >= 0 && node.operand[k] < i, "ERR_INTERNAL", "mask program: value ", i, " reads value ", node.operand[k]);
      node.deps |= nodes[node.operand[k]].deps;
    }
    if (load) {
      check(instr.a >= 0 && instr.a < program.table_count, "ERR_INTERNAL", "mask program: table ", instr.a);
      check((program.tables[instr.a].dtype == 0) == (instr.op == MaskOp::LoadF), "ERR_INTERNAL", "mask program: dtype of table ", instr.a);
      node.immediate = instr.a;
      if (program.tables[instr.a].length == 0) {  // reads 0
        node = Node{};
        node.op = static_cast<int32_t>(instr.op == MaskOp::LoadI ? MaskOp::ConstI : MaskOp::ConstF);
        continue;
      }
    }
    switch (instr.op) {
      case MaskOp::Batch: node.deps = DependsBatchHead; break;
      case MaskOp::Head: node.deps = heads_in_lanes ? DependsBatchHead | DependsQuery : DependsBatchHead; break;
      case MaskOp::Query: node.deps = DependsQuery; break;
      case MaskOp::Key: node.deps = DependsKey; break;
      case MaskOp::Score:
      case MaskOp::Upstream: node.deps = DependsScore; break;
      case MaskOp::ConstI:
      case MaskOp::ConstF: node.immediate = instr.a; break;
      case MaskOp::UniformI:
      case MaskOp::UniformF:
        check(instr.a >= 0 && instr.a < program.uniform_count, "ERR_INTERNAL", "mask program: uniform ", instr.a);
        node.immediate = program.uniforms[instr.a];
        node.op = static_cast<int32_t>(instr.op == MaskOp::UniformI ? MaskOp::ConstI : MaskOp::ConstF);
        break;
      default: break;
    }
  }
  return nodes;
}

// float(a - b) and a * b +- c become one pass over the strip where the inner value has no other reader.
void fuse(std::vector<Node>& nodes) {
  auto sole = [&](int32_t value, MaskOp op) {
    return nodes[value].is(op) && nodes[value].uses == 1 && nodes[value].space() == Space::Both;
  };
  auto absorb = [&](Node& node, FusedOp op, int32_t inner, int32_t addend) {
    node.op = static_cast<int32_t>(op);
    node.operand[0] = nodes[inner].operand[0];
    node.operand[1] = nodes[inner].operand[1];
    node.operand[2] = addend;
    nodes[inner].live = false;
  };
  for (Node& node : nodes) {
    if (!node.live || node.space() != Space::Both) continue;
    int32_t a = node.operand[0], b = node.operand[1];
    if (node.is(MaskOp::IntToFloat) && sole(a, MaskOp::SubI)) absorb(node, FusedOp::DiffToFloat, a, -1);
    else if (node.is(MaskOp::AddF) && sole(a, MaskOp::MulF)) absorb(node, FusedOp::MulAdd, a, b);
    else if (node.is(MaskOp::AddF) && sole(b, MaskOp::MulF)) absorb(node, FusedOp::MulAdd, b, a);
    else if (node.is(MaskOp::SubF) && sole(b, MaskOp::MulF)) absorb(node, FusedOp::NegMulAdd, b, a);
    else if (node.is(MaskOp::SubF) && sole(a, MaskOp::MulF)) absorb(node, FusedOp::MulSub, a, b);
  }
}

// Whether the result is the score plus something that does not depend on it: sums lead from one to the other.
bool adds_to_score(const std::vector<Node>& nodes, int32_t result) {
  auto scored = [&](int32_t value) { return (nodes[value].deps & DependsScore) != 0; };
  for (int32_t at = result; !nodes[at].is(MaskOp::Score);) {
    const Node& node = nodes[at];
    if (node.is(MaskOp::AddF) && scored(node.operand[0]) != scored(node.operand[1])) at = node.operand[scored(node.operand[0]) ? 0 : 1];
    else if (node.is(MaskOp::SubF) && scored(node.operand[0]) && !scored(node.operand[1])) at = node.operand[0];
    else return false;
  }
  return true;
}

// Whether the result stays what it is when q and k grow by one. Every i32 value grows by a known number then, or by who knows.
bool depends_on_distance(const std::vector<Node>& nodes, int32_t result) {
  constexpr int32_t unknown = INT32_MIN;
  std::vector<int32_t> growth(nodes.size(), 0);
  for (size_t i = 0; i < nodes.size(); i++) {
    const Node& node = nodes[i];
    int32_t a = node.operand[0] < 0 ? 0 : growth[node.operand[0]], b = node.operand[1] < 0 ? 0 : growth[node.operand[1]];
    const int32_t c = node.operand[2] < 0 ? 0 : growth[node.operand[2]];
    const bool positions = node.operand[1] >= 0 && (nodes[node.operand[0]].is(MaskOp::Query) || nodes[node.operand[0]].is(MaskOp::Key)) &&
                           (nodes[node.operand[1]].is(MaskOp::Query) || nodes[node.operand[1]].is(MaskOp::Key));
    int32_t& grows = growth[i];
    if (node.is(MaskOp::Query) || node.is(MaskOp::Key)) grows = 1;
    else if (a == 0 && b == 0 && c == 0) grows = 0;
    else if (a == unknown || b == unknown || c == unknown || a > 1024 || a < -1024 || b > 1024 || b < -1024) grows = unknown;
    else if (node.is(MaskOp::AddI)) grows = a + b;
    else if (node.is(MaskOp::SubI)) grows = a - b;
    else if (node.is(MaskOp::NegI)) grows = -a;
    else if ((node.is(MaskOp::EqI) || node.is(MaskOp::NeI)) && a == b) grows = 0;
    else if ((node.is(MaskOp::LtI) || node.is(MaskOp::LeI)) && positions) grows = 0;  // other sums might wrap in between
    else grows = unknown;
  }
  return growth[result] == 0;
}

// Hands out slots of one space; a released slot is given out again.
class SlotPool {
 public:
  int32_t take() {
    if (free_.empty()) return count_++;
    int32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  void release(int32_t slot) { free_.push_back(slot); }
  int32_t count() const { return count_; }

 private:
  std::vector<int32_t> free_;
  int32_t count_ = 0;
};

class Planner {
 public:
  Planner(std::vector<Node> nodes, ProgramPlan& plan, int32_t result) : nodes_(std::move(nodes)), plan_(plan), result_(result) {}

  void place(const MaskProgram& program, std::vector<PlanInstr>& code, std::vector<PlanSpread>& spreads,
             std::vector<PlanScatter>& scatters) {
    order();
    find_last_uses(program);
    home_.resize(nodes_.size());
    wide_.assign(nodes_.size(), -1);
    mark_wide(program);
    for (int32_t value : order_) code.push_back(emit(value));
    for (size_t value = 0; value < nodes_.size(); value++)
      if (wide_[value] >= 0) spreads.push_back({home_[value].slot, wide_[value]});
    for (int32_t i = 0; i < program.scatter_count; i++) {
      const MaskScatter& scatter = program.scatters[i];
      scatters.push_back({scatter.table, strip_ref(scatter.index), strip_ref(scatter.grad)});
    }
    if (plan_.result.space != Space::Out) plan_.result = strip_ref(result_);
    for (Space space : {Space::BatchHead, Space::Query, Space::Key, Space::KeyWide, Space::Both})
      plan_.slots[static_cast<int>(space)] = pools_[static_cast<int>(space)].count();
  }

 private:
  void order() {
    for (Space space : {Space::BatchHead, Space::Query, Space::Key, Space::Both}) {
      plan_.begin[static_cast<int>(group(space))] = static_cast<int32_t>(order_.size());
      for (size_t value = 0; value < nodes_.size(); value++)
        if (nodes_[value].live && nodes_[value].space() == space) order_.push_back(static_cast<int32_t>(value));
    }
    plan_.begin[4] = static_cast<int32_t>(order_.size());
  }

  static int group(Space space) { return space == Space::Both ? 3 : static_cast<int>(space); }

  void find_last_uses(const MaskProgram& program) {
    last_use_.assign(nodes_.size(), -1);
    for (size_t at = 0; at < order_.size(); at++)
      for (int32_t operand : nodes_[order_[at]].operand)
        if (operand >= 0) last_use_[operand] = static_cast<int32_t>(at);
    constexpr int32_t forever = INT32_MAX;
    last_use_[result_] = forever;
    for (int32_t i = 0; i < program.scatter_count; i++)
      last_use_[program.scatters[i].index] = last_use_[program.scatters[i].grad] = forever;
  }

  // Key values read by the Both group, a scatter or the result get a wide twin.
  void mark_wide(const MaskProgram& program) {
    auto need = [&](int32_t value) {
      if (value < 0 || nodes_[value].space() != Space::Key || wide_[value] >= 0) return;
      wide_[value] = pools_[static_cast<int>(Space::KeyWide)].take();
    };
    for (int32_t value : order_)
      if (nodes_[value].space() == Space::Both)
        for (int32_t operand : nodes_[value].operand) need(operand);
    need(result_);
    for (int32_t i = 0; i < program.scatter_count; i++) need(program.scatters[i].index), need(program.scatters[i].grad);
  }

  PlanRef strip_ref(int32_t value) const {
    Space space = nodes_[value].space();
    if (space == Space::Key) return {Space::KeyWide, wide_[value]};
    if (space == Space::Score || space == Space::Upstream) return {space, 0};
    return home_[value];
  }

  PlanInstr emit(int32_t value) {
    const Node& node = nodes_[value];
    Space space = node.space();
    int32_t at = static_cast<int32_t>(emitted_++);
    PlanInstr instr;
    instr.op = node.op;
    instr.immediate = node.immediate;
    PlanRef* refs[3] = {&instr.a, &instr.b, &instr.c};
    for (int k = 0; k < 3; k++) {
      int32_t operand = node.operand[k];
      if (operand < 0) continue;
      *refs[k] = space == Space::Both ? strip_ref(operand) : home_[operand];
      // Elementwise: an operand read for the last time may be overwritten in place.
      bool repeated = (k > 0 && operand == node.operand[0]) || (k > 1 && operand == node.operand[1]);
      if (space == Space::Both && nodes_[operand].space() == Space::Both && last_use_[operand] == at && !repeated)
        pools_[static_cast<int>(Space::Both)].release(home_[operand].slot);
    }
    // A derivative's result is still to be masked by its upstream gradient, so only a score may write through.
    if (plan_.kind == ProgramPlan::Kind::Score && value == result_ && space == Space::Both) {
      home_[value] = plan_.result = {Space::Out, 0};
    } else {
      home_[value] = {space, pools_[static_cast<int>(space)].take()};
    }
    instr.out = home_[value];
    return instr;
  }

  std::vector<Node> nodes_;
  ProgramPlan& plan_;
  int32_t result_;
  std::vector<int32_t> order_, last_use_, wide_;
  std::vector<PlanRef> home_;
  SlotPool pools_[kSpaces];
  size_t emitted_ = 0;
};

}  // namespace

// The same program for a score of 0.
void ProgramPlan::plan_addend(const MaskProgram& program, bool heads_in_lanes) {
  std::vector<MaskInstr>& instructions = storage_->addend_code;
  instructions.assign(program.code, program.code + program.size);
  for (MaskInstr& instr : instructions)
    if (instr.op == MaskOp::Score) instr = {MaskOp::ConstF, 0, 0, 0};
  MaskProgram rest = program;
  rest.code = instructions.data();
  storage_->addend = std::make_unique<ProgramPlan>(rest, Kind::Score, heads_in_lanes);
  addend = storage_->addend.get();
}

ProgramPlan::ProgramPlan(const MaskProgram& program, Kind wanted, bool heads_in_lanes)
    : kind(wanted), tables(program.tables), storage_(new Storage) {
  try {
    std::vector<Node> nodes = read_nodes(program, heads_in_lanes);
    check(program.result >= 0 && program.result < program.size, "ERR_INTERNAL", "mask program: no value ", program.result);
    by_distance = depends_on_distance(nodes, program.result);
    if (kind == Kind::Score && !nodes[program.result].is(MaskOp::Score) && adds_to_score(nodes, program.result))
      plan_addend(program, heads_in_lanes);
    auto use = [&](int32_t value) {
      check(value >= 0 && value < program.size, "ERR_INTERNAL", "mask program: no value ", value);
      nodes[value].live = true;
      nodes[value].uses++;
    };
    use(program.result);
    for (int32_t i = 0; i < program.scatter_count; i++) use(program.scatters[i].index), use(program.scatters[i].grad);
    for (int32_t i = program.size - 1; i >= 0; i--)
      if (nodes[i].live)
        for (int32_t operand : nodes[i].operand)
          if (operand >= 0) use(operand);
    for (const Node& node : nodes) {
      if (!node.live) continue;
      reads_score |= node.is(MaskOp::Score);
      depends_batch |= node.is(MaskOp::Batch);
      depends_head |= node.is(MaskOp::Head);
    }
    if (kind != Kind::Mask) fuse(nodes);
    result = {Space::Both, 0};
    Planner(std::move(nodes), *this, program.result).place(program, storage_->code, storage_->spreads, storage_->scatters);
  } catch (...) {
    delete storage_;
    throw;
  }
  code = storage_->code.data();
  spreads = storage_->spreads.data();
  spread_count = static_cast<int32_t>(storage_->spreads.size());
  scatters = storage_->scatters.data();
  scatter_count = static_cast<int32_t>(storage_->scatters.size());
}

ProgramPlan::~ProgramPlan() { delete storage_; }

}  // namespace fovea
