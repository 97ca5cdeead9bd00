// The program interpreter against plain loops: hoisted groups, fused steps, strips with a tail, heads in lanes, and derivatives with every
// shape of scatter index (one per head, ascending and descending along lanes, one per key, arbitrary), at the baseline level.
#include "cpu/program_vm.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

using namespace fovea;
using namespace fovea::cpu;

namespace {

constexpr int kTile = 48, kKeys = 77, kStride = 64, kFirstQuery = 20, kFirstKey = 3, kHead = 2;
std::mt19937 generator(3);
float uniform() { return static_cast<float>(static_cast<int>(generator() % 2001) - 1000) / 500.f; }

std::vector<float> random_table(size_t n) {
  std::vector<float> table(n);
  for (float& x : table) x = uniform();
  return table;
}

struct Lanes {
  std::vector<int32_t> q, h;
};

Lanes lanes(bool heads_in_lanes) {
  Lanes l{std::vector<int32_t>(kTile), std::vector<int32_t>(kTile, kHead)};
  for (int i = 0; i < kTile; i++) {
    l.q[i] = heads_in_lanes ? static_cast<int32_t>(generator() % 90) : kFirstQuery + i;
    if (heads_in_lanes) l.h[i] = static_cast<int32_t>(generator() % 4);
  }
  return l;
}

// An interpreter over its own scratch memory, started at (batch 0, head, queries).
class Machine {
 public:
  Machine(const ProgramPlan& plan, const Lanes& l)
      : memory_(static_cast<char*>(std::aligned_alloc(64, (ProgramVm::scratch_bytes(plan, kTile) + 63) / 64 * 64)), &std::free),
        vm(plan, kTile, memory_.get()) {
    vm.begin_head(0, kHead);
    vm.begin_queries(kTile, l.q.data(), l.h.data());
  }

 private:
  std::unique_ptr<char, decltype(&std::free)> memory_;

 public:
  ProgramVm vm;
};

bool report(const char* what, double error, double bound) {
  bool ok = error <= bound;
  std::printf("%s %s: error %.2g\n", ok ? "ok  " : "FAIL", what, error);
  return ok;
}

bool score(bool heads_in_lanes) {
  std::vector<float> slope = random_table(4);
  const MaskTable table{slope.data(), 4, 0};
  // s - slope[h] * (q - kv), the keys in reverse order
  const MaskInstr code[] = {{MaskOp::Head, 0, 0, 0},       {MaskOp::LoadF, 0, 0, 0}, {MaskOp::Query, 0, 0, 0},
                            {MaskOp::Key, 0, 0, 0},        {MaskOp::Score, 0, 0, 0}, {MaskOp::SubI, 2, 3, 0},
                            {MaskOp::IntToFloat, 5, 0, 0}, {MaskOp::MulF, 1, 6, 0},  {MaskOp::SubF, 4, 7, 0}};
  const MaskProgram program{code, 9, 0, 0, 0, 8, nullptr, 0, &table, 1, nullptr, 0};
  ProgramPlan plan(program, ProgramPlan::Kind::Score, heads_in_lanes);
  Lanes l = lanes(heads_in_lanes);
  Machine machine(plan, l);
  std::vector<float> s = random_table(kKeys * kStride), before = s;
  std::vector<int32_t> keys(kKeys);
  for (int r = 0; r < kKeys; r++) keys[r] = kKeys - r;
  machine.vm.score(kKeys, keys.data(), s.data(), kStride);
  double error = 0;
  for (int r = 0; r < kKeys; r++)
    for (int i = 0; i < kStride; i++) {
      double wanted = before[r * kStride + i];
      if (i < kTile) wanted -= static_cast<double>(slope[l.h[i]]) * (l.q[i] - keys[r]);
      error = std::fmax(error, std::fabs(wanted - s[r * kStride + i]));
    }
  return report(heads_in_lanes ? "score, heads in lanes" : "score", error, 2e-5);
}

bool derivative(bool heads_in_lanes) {
  // value = s * t0[h] + t1[q - kv + 50] + t2[kv - q + 50] + t3[q * kv % 13] + t4[kv]; its derivative by s and by each table.
  const int64_t lengths[5] = {4, 101, 101, 13, 200};
  std::vector<float> values[5];
  MaskTable tables[5];
  for (int t = 0; t < 5; t++) {
    values[t] = random_table(static_cast<size_t>(lengths[t]));
    tables[t] = {values[t].data(), lengths[t], 0};
  }
  const MaskInstr code[] = {{MaskOp::Head, 0, 0, 0},     {MaskOp::Query, 0, 0, 0}, {MaskOp::Key, 0, 0, 0},     {MaskOp::Score, 0, 0, 0},
                            {MaskOp::Upstream, 0, 0, 0}, {MaskOp::LoadF, 0, 0, 0}, {MaskOp::MulF, 4, 5, 0},    {MaskOp::MulF, 4, 3, 0},
                            {MaskOp::ConstI, 50, 0, 0},  {MaskOp::SubI, 1, 2, 0},  {MaskOp::AddI, 9, 8, 0},    {MaskOp::SubI, 2, 1, 0},
                            {MaskOp::AddI, 11, 8, 0},    {MaskOp::MulI, 1, 2, 0},  {MaskOp::ConstI, 13, 0, 0}, {MaskOp::RemI, 13, 14, 0}};
  const MaskScatter scatters[] = {{0, 0, 7}, {1, 10, 4}, {2, 12, 4}, {3, 15, 4}, {4, 2, 4}};
  const MaskProgram program{code, 16, 0, 0, 0, 6, scatters, 5, tables, 5, nullptr, 0};
  ProgramPlan plan(program, ProgramPlan::Kind::Derivative, heads_in_lanes);
  Lanes l = lanes(heads_in_lanes);
  Machine machine(plan, l);
  std::vector<float> s = random_table(kKeys * kStride), grad = random_table(kKeys * kStride);
  for (float& g : grad)
    if (generator() % 4 == 0) g = 0;
  s[5] = NAN;  // a masked element may hold anything
  grad[5] = 0;
  const std::vector<float> upstream = grad;
  std::vector<float> sums[5];
  float* pointers[5];
  std::vector<double> wanted[5];
  for (int t = 0; t < 5; t++) {
    sums[t].assign(static_cast<size_t>(lengths[t]), 0.f);
    wanted[t].assign(static_cast<size_t>(lengths[t]), 0.0);
    pointers[t] = sums[t].data();
  }
  machine.vm.derivative(kKeys, kFirstKey, s.data(), kStride, grad.data(), kStride, pointers);
  double error = 0, sum_error = 0;
  for (int r = 0; r < kKeys; r++)
    for (int i = 0; i < kTile; i++) {
      int at = r * kStride + i, q = l.q[i], kv = kFirstKey + r;
      double up = upstream[at], expected = up == 0 ? 0 : up * values[0][l.h[i]];
      error = std::fmax(error, std::fabs(expected - grad[at]));
      if (up == 0) continue;
      auto clamped = [](int index) { return index < 0 ? 0 : index > 100 ? 100 : index; };
      wanted[0][l.h[i]] += up * s[at];
      wanted[1][clamped(q - kv + 50)] += up;
      wanted[2][clamped(kv - q + 50)] += up;
      wanted[3][q * kv % 13] += up;
      wanted[4][kv] += up;
    }
  for (int t = 0; t < 5; t++)
    for (int64_t i = 0; i < lengths[t]; i++) sum_error = std::fmax(sum_error, std::fabs(wanted[t][i] - sums[t][i]));
  bool ok = report(heads_in_lanes ? "derivative, heads in lanes" : "derivative", error, 1e-6);
  return report(heads_in_lanes ? "scatters, heads in lanes" : "scatters", sum_error, 2e-4) && ok;
}

bool mask_bits() {
  // kv <= q, a tile whose rows end inside a strip
  const MaskInstr code[] = {{MaskOp::Query, 0, 0, 0}, {MaskOp::Key, 0, 0, 0}, {MaskOp::LeI, 1, 0, 0}};
  const MaskProgram program{code, 3, 0, 1, 2, 2, nullptr, 0, nullptr, 0, nullptr, 0};
  ProgramPlan plan(program, ProgramPlan::Kind::Mask);
  Lanes l = lanes(false);
  Machine machine(plan, l);
  std::vector<uint8_t> bits(kKeys * kTile / 8);
  machine.vm.mask(kKeys, kFirstKey, bits.data(), kTile / 8);
  int wrong = 0;
  for (int r = 0; r < kKeys; r++)
    for (int i = 0; i < kTile; i++) wrong += ((bits[r * kTile / 8 + i / 8] >> (i % 8)) & 1) != (kFirstKey + r <= l.q[i]);
  return report("mask bits", wrong, 0);
}

}  // namespace

int main() {
  bool ok = mask_bits();
  for (bool heads_in_lanes : {false, true}) {
    ok = score(heads_in_lanes) && ok;
    ok = derivative(heads_in_lanes) && ok;
  }
  return ok ? 0 : 1;
}
