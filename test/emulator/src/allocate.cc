// Registers get slots in the warp's frame.
//
// Liveness is computed over the control flow graph of one thread. That is enough for a warp: every lane owns its element of a slot, and
// follows one path. A register's slot is its own from the first to the last instruction where it is live, in text order. A second pass
// finds registers that some path reads before it writes them: these are tracked at run time.
#include <algorithm>
#include <set>

#include "decoder.h"
#include "machine.h"

namespace fovea::emulator {

namespace {

using Bits = std::vector<uint64_t>;

bool test(const Bits& b, int k) { return b[static_cast<size_t>(k) >> 6] >> (k & 63) & 1; }
void raise_bit(Bits& b, int k) { b[static_cast<size_t>(k) >> 6] |= 1ull << (k & 63); }
void clear_bit(Bits& b, int k) { b[static_cast<size_t>(k) >> 6] &= ~(1ull << (k & 63)); }

bool is_register(const DraftOperand& op) { return op.kind == DraftOperand::Kind::Register || op.kind == DraftOperand::Kind::Predicate; }

struct BasicBlock {
  int begin, end;
  std::vector<int> next;
  Bits live_in, live_out, set_in, set_out;
};

class Allocator {
 public:
  Allocator(DraftProgram& draft, Program& program) : draft_(draft), program_(program), registers_(static_cast<int>(draft.widths.size())) {}

  void run() {
    split_blocks();
    find_tracked();
    find_intervals();
    assign_slots();
    finish();
  }

 private:
  template <class F>
  void for_reads(const Draft& d, F f) const {
    for (size_t k = static_cast<size_t>(d.destinations); k < d.ops.size(); ++k) {
      if (is_register(d.ops[k])) f(d.ops[k].index);
    }
    if (d.guard >= 0) f(d.guard);
  }
  template <class F>
  void for_writes(const Draft& d, F f) const {
    for (int k = 0; k < d.destinations; ++k) {
      if (is_register(d.ops[static_cast<size_t>(k)])) f(d.ops[static_cast<size_t>(k)].index);
    }
  }

  void split_blocks() {
    const int n = static_cast<int>(draft_.code.size());
    std::vector<char> leader(static_cast<size_t>(n) + 1, 0);
    leader[0] = 1;
    for (int k = 0; k < n; ++k) {
      const Draft& d = draft_.code[k];
      for (int t : d.targets) leader[t] = 1;
      if (!d.targets.empty() || d.ends) leader[k + 1] = 1;
    }
    std::vector<int> block_at(static_cast<size_t>(n) + 1, -1);
    for (int k = 0; k < n; ++k) {
      if (leader[k]) blocks_.push_back({k, k, {}, {}, {}, {}, {}});
      blocks_.back().end = k + 1;
      block_at[k] = static_cast<int>(blocks_.size()) - 1;
    }
    const Bits empty((static_cast<size_t>(registers_) + 63) / 64, 0);
    for (BasicBlock& b : blocks_) {
      const Draft& last = draft_.code[b.end - 1];
      for (int t : last.targets) b.next.push_back(block_at[t]);
      if (!last.ends && b.end < n) b.next.push_back(block_at[b.end]);
      b.live_in = b.live_out = empty;
    }
  }

  // Registers written on every path, forwards: what is read outside that set is tracked.
  void find_tracked() {
    const Bits none((static_cast<size_t>(registers_) + 63) / 64, 0), all(none.size(), ~0ull);
    for (BasicBlock& b : blocks_) b.set_in = b.set_out = all;
    blocks_[0].set_in = none;
    for (const auto& [special, reg] : draft_.specials) raise_bit(blocks_[0].set_in, reg);
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t k = 0; k < blocks_.size(); ++k) {
        BasicBlock& b = blocks_[k];
        Bits set = b.set_in;
        for (int i = b.begin; i < b.end; ++i) write_set(draft_.code[i], set);
        if (set != b.set_out) changed = true;
        b.set_out = set;
        for (int n : b.next) {
          Bits& in = blocks_[n].set_in;
          for (size_t w = 0; w < in.size(); ++w) in[w] &= set[w];
        }
      }
    }
    tracked_.assign(static_cast<size_t>(registers_), -1);
    for (BasicBlock& b : blocks_) {
      Bits set = b.set_in;
      for (int i = b.begin; i < b.end; ++i) {
        const Draft& d = draft_.code[i];
        for_reads(d, [&](int r) {
          if (!test(set, r)) track(r);
        });
        if (passes_unset(d, set)) for_writes(d, [&](int r) { track(r); });
        write_set(d, set);
      }
    }
  }

  // A copy or selection of a register that may be unwritten makes its destination one.
  static bool passes_unset(const Draft& d, const Bits& set) {
    const auto unset = [&](size_t k) { return is_register(d.ops[k]) && !test(set, d.ops[k].index); };
    return (d.copies && unset(1)) || (d.selects && (unset(1) || unset(2)));
  }

  void write_set(const Draft& d, Bits& set) const {
    if (d.guard >= 0) return;
    const bool unset_copy = passes_unset(d, set);
    for_writes(d, [&](int r) {
      if (unset_copy) {
        clear_bit(set, r);
      } else {
        raise_bit(set, r);
      }
    });
  }

  void track(int r) {
    if (tracked_[r] >= 0) return;
    tracked_[r] = static_cast<int>(program_.tracked_names.size());
    program_.tracked_names.push_back(draft_.names[r]);
  }

  void find_intervals() {
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t k = blocks_.size(); k-- > 0;) {
        BasicBlock& b = blocks_[k];
        Bits live = b.live_out;
        for (int n : b.next) {
          for (size_t w = 0; w < live.size(); ++w) live[w] |= blocks_[n].live_in[w];
        }
        b.live_out = live;
        for (int i = b.end; i-- > b.begin;) {
          const Draft& d = draft_.code[i];
          if (d.guard < 0) for_writes(d, [&](int r) { clear_bit(live, r); });
          for_reads(d, [&](int r) { raise_bit(live, r); });
        }
        if (live != b.live_in) changed = true;
        b.live_in = std::move(live);
      }
    }
    first_.assign(static_cast<size_t>(registers_), -1);
    last_.assign(static_cast<size_t>(registers_), -1);
    for (const BasicBlock& b : blocks_) {
      for (int r = 0; r < registers_; ++r) {
        if (test(b.live_in, r)) extend(r, b.begin);
        if (test(b.live_out, r)) extend(r, b.end - 1);
      }
      for (int i = b.begin; i < b.end; ++i) {
        for_reads(draft_.code[i], [&](int r) { extend(r, i); });
        for_writes(draft_.code[i], [&](int r) { extend(r, i); });
      }
    }
    const int n = static_cast<int>(draft_.code.size());
    for (const auto& [special, r] : draft_.specials) extend(r, 0), extend(r, n - 1);
    for (int r = 0; r < registers_; ++r) {
      if (tracked_[r] >= 0) extend(r, 0), extend(r, n - 1);
    }
  }

  void extend(int r, int at) {
    if (first_[r] < 0 || at < first_[r]) first_[r] = at;
    last_[r] = std::max(last_[r], at);
  }

  // Linear scan. A slot becomes free only behind the last use, so a destination never shares one with a source of its instruction.
  void assign_slots() {
    std::vector<int> order;
    for (int r = 0; r < registers_; ++r) {
      if (first_[r] >= 0) order.push_back(r);
    }
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return first_[a] < first_[b]; });
    slot_.assign(static_cast<size_t>(registers_), 0);
    std::set<std::pair<int, int>> busy;  // (last use, register)
    std::vector<uint32_t> free4, free8, free_predicates;
    const auto free_list = [&](int r) -> std::vector<uint32_t>& {
      return draft_.widths[r] == 0 ? free_predicates : draft_.widths[r] == 4 ? free4 : free8;
    };
    int live = 0;
    for (int r : order) {
      while (!busy.empty() && busy.begin()->first < first_[r]) {
        const int done = busy.begin()->second;
        live -= draft_.widths[done] / 4;
        free_list(done).push_back(slot_[done]);
        busy.erase(busy.begin());
      }
      auto& list = free_list(r);
      if (!list.empty()) {
        slot_[r] = list.back();
        list.pop_back();
      } else if (draft_.widths[r] == 0) {
        slot_[r] = program_.predicates++;
      } else {
        slot_[r] = program_.frame_bytes;
        program_.frame_bytes += draft_.widths[r] * static_cast<uint32_t>(kLanes);
      }
      live += draft_.widths[r] / 4;
      program_.live_registers = std::max(program_.live_registers, live);
      busy.emplace(last_[r], r);
    }
  }

  Operand encode(const DraftOperand& op) const {
    switch (op.kind) {
      case DraftOperand::Kind::Register: return slot_[op.index];
      case DraftOperand::Kind::Predicate: return slot_[op.index] | (op.negated ? kNegated : 0);
      case DraftOperand::Kind::FixedPredicate: return static_cast<Operand>(op.index) | (op.negated ? kNegated : 0);
      case DraftOperand::Kind::Constant: return static_cast<Operand>(op.index) | kConstant;
    }
    return 0;
  }

  void finish() {
    size_t operands = 0;
    for (const Draft& d : draft_.code) operands += d.ops.size();
    program_.pool.reserve(operands);
    for (Draft& d : draft_.code) {
      Instr i = d.instr;
      i.count = static_cast<uint16_t>(d.ops.size());
      i.ops = program_.pool.data() + program_.pool.size();
      for (const DraftOperand& op : d.ops) program_.pool.push_back(encode(op));
      if (d.guard >= 0) i.guard = slot_[d.guard], i.guard_flip = d.guard_negated ? kAllLanes : 0;
      if (d.jump_table >= 0) {
        program_.jump_tables[d.jump_table].assign(d.targets.begin(), d.targets.end());
        i.target = static_cast<uint32_t>(d.jump_table);
      } else if (!d.targets.empty()) {
        i.target = static_cast<uint32_t>(d.targets[0]);
      }
      wrap_tracked(d, i);
      program_.code.push_back(i);
    }
    for (const auto& [special, r] : draft_.specials) program_.specials.push_back({special, slot_[r]});
    program_.frame_bytes = std::max(program_.frame_bytes, 64u);
  }

  void wrap_tracked(const Draft& d, Instr& i);

  DraftProgram& draft_;
  Program& program_;
  int registers_;
  std::vector<BasicBlock> blocks_;
  std::vector<int> tracked_, first_, last_;
  std::vector<uint32_t> slot_;
};

// Runs the instruction between a check of what it reads and a note of what it wrote.
void run_tracked(Warp& w, const Instr& i, uint32_t mask) {
  const size_t at = static_cast<size_t>(&i - w.program->code.data());
  const TrackedAccess& t = w.program->tracked[w.program->tracked_at[at]];
  if (t.copies) {
    t.inner(w, i, mask);
    const uint32_t from = t.reads.empty() ? kAllLanes : w.valid[t.reads[0]];
    for (uint16_t r : t.writes) w.valid[r] = (w.valid[r] & ~mask) | (from & mask);
    return;
  }
  for (uint16_t r : t.reads) {
    if (const uint32_t missing = mask & ~w.valid[r]) {
      raise(FaultKind::Uninitialized, w, i, __builtin_ctz(missing), "register %s was never written", w.program->tracked_names[r].c_str());
    }
  }
  const uint32_t before = w.pc;
  t.inner(w, i, mask);
  if (w.pc + 1 == before || w.active == 0) return;  // held back to wait for other lanes
  for (uint16_t r : t.writes) w.valid[r] |= mask;
}

constexpr uint16_t kUntracked = 0xffff;

// selp d, a, b, p: the lanes of d are as written as what each of them chose. reads: a, b.
void run_tracked_select(Warp& w, const Instr& i, uint32_t mask) {
  const size_t at = static_cast<size_t>(&i - w.program->code.data());
  const TrackedAccess& t = w.program->tracked[w.program->tracked_at[at]];
  const auto written = [&](uint16_t r) { return r == kUntracked ? kAllLanes : w.valid[r]; };
  const uint32_t p = w.pred(i.ops[3]), from = (written(t.reads[0]) & p) | (written(t.reads[1]) & ~p);
  t.inner(w, i, mask);
  for (uint16_t r : t.writes) w.valid[r] = (w.valid[r] & ~mask) | (from & mask);
}

void Allocator::wrap_tracked(const Draft& d, Instr& i) {
  TrackedAccess t{i.fn, {}, {}, d.copies};
  for_reads(d, [&](int r) {
    if (tracked_[r] >= 0) t.reads.push_back(static_cast<uint16_t>(tracked_[r]));
  });
  for_writes(d, [&](int r) {
    if (tracked_[r] >= 0) t.writes.push_back(static_cast<uint16_t>(tracked_[r]));
  });
  program_.tracked_at.push_back(static_cast<uint32_t>(program_.tracked.size()));
  if (t.reads.empty() && t.writes.empty()) return;
  i.fn = &run_tracked;
  if (d.selects && i.guard == kTruePredicate && is_register(d.ops[0]) && tracked_[d.ops[0].index] >= 0) {
    const auto index = [&](const DraftOperand& op) {
      return is_register(op) && tracked_[op.index] >= 0 ? static_cast<uint16_t>(tracked_[op.index]) : kUntracked;
    };
    t.reads = {index(d.ops[1]), index(d.ops[2])};
    i.fn = &run_tracked_select;
  }
  program_.tracked.push_back(std::move(t));
}

}  // namespace

void allocate_registers(DraftProgram& draft, Program& program) { Allocator(draft, program).run(); }

}  // namespace fovea::emulator
