// The interpreter of mask and score programs over tiles: rows are keys, lanes are queries, the layout of a score tile.
//
// One instruction is dispatched over a strip of up to kRows keys by all lanes of the tile, so that decoding costs nothing beside the
// arithmetic. Values of the batch-head group are computed once per head, those of the query group once per query tile, those of the key
// group once per strip (lanes are then keys) and spread over lanes. Every operand is (pointer, step per row, step per column), so that all
// these shapes run through the same loops.
//
// Usage (ProgramPlan::Kind::Score; the plan is made once per call and shared, the rest belongs to a thread):
//   ProgramVm vm(plan, lanes, scratch);                              scratch of scratch_bytes(plan, lanes), aligned to 64 bytes
//   vm.begin_head(b, h);
//   vm.begin_queries(lanes, q0);                                     lanes: a multiple of kLanes, at most the constructor's
//   vm.score(rows, kv0, s, stride);                                  s[row * stride + lane]: scaled logits in, program's value out
//   vm.derivative(rows, kv0, s, stride, ds, stride, tables);         s: logits; ds: dL/d(program's value) in, dL/ds out
//
// Lanes beyond the tensor may hold anything: table indices are clamped. In derivatives an element whose upstream gradient is exactly 0
// (masked, or a lane beyond the tensor) gives gradient 0 and scatters nothing, whatever its score.
#pragma once

#include "core/program_plan.h"
#include "cpu/program_math.h"
#include "cpu/program_step.h"

namespace fovea::cpu {
namespace {

class ProgramVm {
 public:
  static constexpr int kRows = 32;  // a multiple of every kLanes

  static size_t scratch_bytes(const ProgramPlan& plan, int max_lanes) {
    size_t lanes = static_cast<size_t>(max_lanes), total = (2 * lanes + kRows) * 4;
    for (int s = 0; s < kSpaces; s++) total += static_cast<size_t>(plan.slots[s]) * slot_bytes(static_cast<Space>(s), lanes);
    return total + 64;
  }

  ProgramVm(const ProgramPlan& plan, int max_lanes, void* scratch) : plan_(plan), max_lanes_(max_lanes), cols_(max_lanes / kLanes) {
    char* at = static_cast<char*>(scratch);
    for (int s = 0; s < kSpaces; s++) {
      Space space = static_cast<Space>(s);
      Place& place = places_[s];
      place.base = at;
      place.slot = static_cast<int32_t>(slot_bytes(space, static_cast<size_t>(max_lanes)));
      place.row = space == Space::KeyWide ? kVectorBytes : space == Space::Both ? max_lanes * 4 : 0;
      place.col = space == Space::BatchHead || space == Space::KeyWide ? 0 : kVectorBytes;
      at += static_cast<size_t>(plan.slots[s]) * static_cast<size_t>(place.slot);
    }
    queries_ = reinterpret_cast<int32_t*>(at);
    heads_ = queries_ + max_lanes;
    keys_ = heads_ + max_lanes;
  }

  void begin_head(int32_t b, int32_t h) {
    batch_ = b;
    for (int i = 0; i < max_lanes_; i++) heads_[i] = h;
    run_group(0, 1, 1);
  }

  // Lane i is query q0 + i.
  void begin_queries(int lanes, int32_t q0) {
    cols_ = lanes / kLanes;
    for (int c = 0; c < cols_; c++) store(queries_ + c * kLanes, iota() + set1(q0 + c * kLanes));
    run_group(1, 1, cols_);
  }

  // Lane i is query q[i] and, where the plan was made for heads in lanes, head h[i].
  void begin_queries(int lanes, const int32_t* q, const int32_t* h = nullptr) {
    cols_ = lanes / kLanes;
    for (int i = 0; i < lanes; i++) queries_[i] = q[i];
    if (h)
      for (int i = 0; i < lanes; i++) heads_[i] = h[i];
    run_group(1, 1, cols_);
  }

  // s[r * stride + lane] of key kv0 + r becomes the program's value. Strides in floats.
  void score(int rows, int32_t kv0, float* s, int64_t stride) { score_rows(rows, Contiguous{kv0}, s, stride); }
  // The same with key kv[r] in row r.
  void score(int rows, const int32_t* kv, float* s, int64_t stride) { score_rows(rows, kv, s, stride); }

  // s holds the logits the program saw; ds holds dL/d(value) and becomes dL/ds. tables[t] is an f32 array to add the gradient of table t
  // into, private to the caller, or null; `tables` may be null.
  void derivative(int rows, int32_t kv0, const float* s, int64_t s_stride, float* ds, int64_t ds_stride, float* const* tables) {
    derivative_rows(rows, Contiguous{kv0}, s, s_stride, ds, ds_stride, tables);
  }
  void derivative(int rows, const int32_t* kv, const float* s, int64_t s_stride, float* ds, int64_t ds_stride, float* const* tables) {
    derivative_rows(rows, kv, s, s_stride, ds, ds_stride, tables);
  }

  // Writes row r of a bit matrix (lanes / 8 bytes, least significant bit first) at bits + r * row_bytes.
  void mask(int rows, int32_t kv0, uint8_t* bits, int64_t row_bytes) {
    for (int r0 = 0; r0 < rows; r0 += kRows) {
      int n = rows - r0 < kRows ? rows - r0 : kRows;
      begin_keys(n, Contiguous{kv0 + r0});
      run_group(3, n, cols_);
      pack_bits(n, bits + r0 * row_bytes, row_bytes);
    }
  }

 private:
  struct Contiguous {
    int32_t first;
    int32_t operator[](int i) const { return first + i; }
    Contiguous operator+(int i) const { return {first + i}; }
  };
  struct Place {
    char* base;
    int32_t slot, row, col;  // bytes
  };

  static size_t slot_bytes(Space space, size_t lanes) {
    switch (space) {
      case Space::BatchHead: return kVectorBytes;
      case Space::Query: return lanes * 4;
      case Space::Key: return kRows * 4;
      case Space::KeyWide: return kRows * kVectorBytes;
      case Space::Both: return kRows * lanes * 4;
      default: return 0;
    }
  }

  FOVEA_INLINE StripOperand operand(PlanRef ref) const {
    const Place& p = places_[static_cast<int>(ref.space)];
    return {p.base + static_cast<int64_t>(ref.slot) * p.slot, p.row, p.col};
  }

  void bind(Space space, float* base, int64_t stride) {
    places_[static_cast<int>(space)] = {reinterpret_cast<char*>(base), 0, static_cast<int32_t>(stride * 4), kVectorBytes};
  }

  template <class Keys>
  void begin_keys(int rows, Keys keys) {
    for (int r = 0; r < kRows; r++) keys_[r] = keys[r < rows ? r : rows - 1];
    run_group(2, 1, kRows / kLanes);
    for (int i = 0; i < plan_.spread_count; i++) {
      const int32_t* from = reinterpret_cast<const int32_t*>(operand({Space::Key, plan_.spreads[i].key_slot}).at);
      int32_t* to = reinterpret_cast<int32_t*>(operand({Space::KeyWide, plan_.spreads[i].wide_slot}).at);
      FOVEA_UNROLL
      for (int r = 0; r < kRows; r++) store(to + r * kLanes, set1(from[r]));
    }
  }

  template <class Keys>
  void score_rows(int rows, Keys keys, float* s, int64_t stride) {
    for (int r0 = 0; r0 < rows; r0 += kRows) {
      int n = rows - r0 < kRows ? rows - r0 : kRows;
      begin_keys(n, keys + r0);
      bind(Space::Score, s + r0 * stride, stride);
      bind(Space::Out, s + r0 * stride, stride);
      run_group(3, n, cols_);
      if (plan_.result.space != Space::Out)
        each_vector(
            n, [&](int64_t r, int64_t c, vf x) { store(s + (r0 + r) * stride + c * kLanes, x); }, plan_.result);
    }
  }

  template <class Keys>
  void derivative_rows(int rows, Keys keys, const float* s, int64_t s_stride, float* ds, int64_t ds_stride, float* const* tables) {
    for (int r0 = 0; r0 < rows; r0 += kRows) {
      int n = rows - r0 < kRows ? rows - r0 : kRows;
      float* up = ds + r0 * ds_stride;
      begin_keys(n, keys + r0);
      bind(Space::Score, const_cast<float*>(s) + r0 * s_stride, s_stride);
      bind(Space::Upstream, up, ds_stride);
      run_group(3, n, cols_);
      if (tables)
        for (int i = 0; i < plan_.scatter_count; i++)
          if (float* table = tables[plan_.scatters[i].table]) scatter(n, plan_.scatters[i], table, up, ds_stride);
      each_vector(
          n,
          [&](int64_t r, int64_t c, vf x) {
            float* at = up + r * ds_stride + c * kLanes;
            store(at, select(load(at) != zero(), x, zero()));
          },
          plan_.result);
    }
  }

  template <class F>
  FOVEA_INLINE void each_vector(int rows, F f, PlanRef ref) const {
    StripOperand o = operand(ref);
    for (int64_t c = 0; c < cols_; c++)
      for (int64_t r = 0; r < rows; r++) f(r, c, load(reinterpret_cast<const float*>(o.at + r * o.row + c * o.col)));
  }

  // table[index] += grad over the strip, in a fixed order. One index for all (a slope per head) is summed in lanes first.
  void scatter(int rows, const PlanScatter& s, float* table, const float* up, int64_t stride) const {
    StripOperand index = operand(s.index), grad = operand(s.grad);
    const int32_t last = vm::last_index(plan_.tables[s.table]);
    if (last < 0) return;
    bool uniform = s.index.space == Space::BatchHead;
    vf sum = zero();
    for (int64_t c = 0; c < cols_; c++)
      for (int64_t r = 0; r < rows; r++) {
        vf g = load(reinterpret_cast<const float*>(grad.at + r * grad.row + c * grad.col));
        g = select(load(up + r * stride + c * kLanes) != zero(), g, zero());
        if (uniform) sum += g;
        else scatter_vector(table, vm::clamped(load(reinterpret_cast<const int32_t*>(index.at + r * index.row + c * index.col)), last), g);
      }
    if (uniform) table[vm::clamped(load(reinterpret_cast<const int32_t*>(index.at)), last)[0]] += reduce_add(sum);
  }

  static FOVEA_INLINE void scatter_vector(float* table, vi index, vf g) {
    int32_t first = index[0];
    if (vm::lane_bits(index == set1(first)) == vm::kAllLanes) {
      table[first] += reduce_add(g);
    } else if (vm::lane_bits(index - iota() == set1(first)) == vm::kAllLanes) {
      store(table + first, load(table + first) + g);
    } else if (vm::lane_bits(index + iota() == set1(first)) == vm::kAllLanes) {
      float* low = table + first - (kLanes - 1);
      store(low, load(low) + from_bits(vm::reversed(bits_of(g))));
    } else {
      for (int i = 0; i < kLanes; i++) table[index[i]] += g[i];
    }
  }

  void pack_bits(int rows, uint8_t* bits, int64_t row_bytes) const {
    StripOperand o = operand(plan_.result);
    constexpr int kColsPerByte = kLanes < 8 ? 8 / kLanes : 1;
    for (int r = 0; r < rows; r++) {
      const char* at = o.at + r * o.row;
      uint8_t* out = bits + r * row_bytes;
      for (int c = 0; c < cols_; c += kColsPerByte, at += kColsPerByte * o.col) {
        uint32_t word = 0;
        FOVEA_UNROLL
        for (int k = 0; k < kColsPerByte; k++)
          word |= vm::lane_bits(load(reinterpret_cast<const int32_t*>(at + k * o.col))) << (k * kLanes);
        *out++ = static_cast<uint8_t>(word);
        if constexpr (kLanes == 16) *out++ = static_cast<uint8_t>(word >> 8);
      }
    }
  }

  void run_group(int group, int rows, int cols) {
    for (int32_t i = plan_.begin[group]; i < plan_.begin[group + 1]; i++) run(plan_.code[i], rows, cols);
  }

  template <class F>
  FOVEA_INLINE static void fill(const Strip& s, F f) {
    for (int c = 0; c < s.cols; c++)
      for (int r = 0; r < s.rows; r++) store(reinterpret_cast<int32_t*>(s.out.at + r * s.out.row + c * s.out.col), f(c));
  }

  void run(const PlanInstr& instr, int rows, int cols) {
    const Strip s{operand(instr.a), operand(instr.b), operand(instr.c), operand(instr.out), rows, cols};
    switch (static_cast<MaskOp>(instr.op)) {
      case MaskOp::Batch: return fill(s, [&](int) { return set1(batch_); });
      case MaskOp::Head: return fill(s, [&](int c) { return load(heads_ + c * kLanes); });
      case MaskOp::Query: return fill(s, [&](int c) { return load(queries_ + c * kLanes); });
      case MaskOp::Key: return fill(s, [&](int c) { return load(keys_ + c * kLanes); });
      case MaskOp::ConstI:
      case MaskOp::ConstF: return fill(s, [&](int) { return set1(instr.immediate); });
      default: return program_step<kOpIsa>(instr, s, plan_.tables, plan_.kind == ProgramPlan::Kind::Mask);
    }
  }

  const ProgramPlan& plan_;
  int max_lanes_, cols_;
  int32_t batch_ = 0;
  int32_t *queries_, *heads_, *keys_;
  Place places_[kSpaces];
};

}  // namespace
}  // namespace fovea::cpu
