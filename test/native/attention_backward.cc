// Attention backward against plain double-precision loops: a table of configurations, every instruction-set level, 1 and 3 threads
// bit-equal.
#include "cpu/attention_backward.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "attention_backward_problem.h"
#include "core/thread_pool.h"

using namespace fovea;

namespace {

struct Result {
  std::vector<float> dq, dk, dv, dbias, dslopes;
};

Result run(Problem& t, Isa isa, int threads) {
  const Case& c = t.c;
  Result r;
  float start = c.rows ? 0.f : NAN;  // with row lists the kernel adds
  r.dq.assign(t.dq.size(), start), r.dk.assign(t.dk.size(), start), r.dv.assign(t.dv.size(), start);
  r.dbias.assign(t.dbias.size(), 0), r.dslopes.assign(c.heads_q, 0);
  AttentionGrads g = t.g;
  g.dtype = DType::F32;
  g.dq = t.p.q, g.dk = t.p.k, g.dv = t.p.v;
  g.dq.data = r.dq.data(), g.dk.data = r.dk.data(), g.dv.data = r.dv.data();
  if (c.bias) g.dbias = t.p.bias, g.dbias.data = r.dbias.data();
  float* table = r.dslopes.data();
  if (c.alibi) g.dtables = &table;
  std::unique_ptr<ProgramPlan> score, derivative;
  if (c.alibi) {
    score = std::make_unique<ProgramPlan>(t.score, ProgramPlan::Kind::Score);
    derivative = std::make_unique<ProgramPlan>(t.derivative, ProgramPlan::Kind::Derivative);
  }
  ThreadPool& pool = ThreadPool::instance();
  pool.set_threads(threads);
  std::vector<char> workspace(cpu::attention_backward_workspace(t.p, g, threads) + 64);
  set_isa(isa);
  dispatch_isa([&](auto level) {
    cpu::attention_backward<level()>(t.p, g, {score.get(), derivative.get()}, workspace.data(), threads, pool, nullptr);
  });
  return r;
}

int failures = 0;

void compare(const Case& c, Isa isa, const char* what, const std::vector<float>& got, const std::vector<double>& want, double tolerance,
             double floor = 1e-3) {
  double high = floor, worst = 0;
  for (double x : want) high = std::max(high, std::fabs(x));
  for (size_t i = 0; i < want.size(); i++) worst = std::max(worst, std::isfinite(got[i]) ? std::fabs(got[i] - want[i]) / high : 1e9);
  if (worst <= tolerance) return;
  failures++;
  std::printf("FAIL %s, %s, %s: error %.2e of the largest value\n", c.name, name_of(isa), what, worst);
}

bool same(const std::vector<float>& a, const std::vector<float>& b) { return a.empty() || memcmp(a.data(), b.data(), a.size() * 4) == 0; }

void check_case(const Case& c, uint32_t seed) {
  Problem t;
  t.c = c;
  make_params(t, seed);
  reference(t);
  double tolerance = c.dtype == DType::F32 ? 2e-5 : 1e-2;
  for (int level = 0; level <= static_cast<int>(best_isa()); level++) {
    Isa isa = static_cast<Isa>(level);
    Result one = run(t, isa, 1), three = run(t, isa, 3);
    compare(c, isa, "dq", one.dq, t.dq, tolerance);
    compare(c, isa, "dk", one.dk, t.dk, tolerance);
    compare(c, isa, "dv", one.dv, t.dv, tolerance);
    compare(c, isa, "dbias", one.dbias, t.dbias, tolerance);
    if (c.alibi) compare(c, isa, "dslopes", one.dslopes, t.dslopes, 1e-6, t.slope_terms);
    if (!same(one.dq, three.dq) || !same(one.dk, three.dk) || !same(one.dv, three.dv) || !same(one.dbias, three.dbias) ||
        !same(one.dslopes, three.dslopes)) {
      failures++;
      std::printf("FAIL %s, %s: 1 and 3 threads differ\n", c.name, name_of(isa));
    }
  }
}

// A key row's gradient must not depend on the batch around it, though batch decides between the two schedules.
void check_batch_invariance() {
  Case c{.name = "batch", .batch = 8, .len_q = 2100, .len_kv = 70};
  Problem all, one;
  all.c = c;
  make_params(all, 3);
  reference(all);
  c.batch = 1;
  one.c = c;
  make_params(one, 3);
  auto first = [](const Operand& from, Operand& to) { std::copy_n(from.wide.begin(), to.wide.size(), to.wide.begin()); };
  first(all.q, one.q), first(all.k, one.k), first(all.v, one.v), first(all.dout, one.dout);
  reference(one);
  Result a = run(all, best_isa(), 4), b = run(one, best_isa(), 4);
  if (memcmp(a.dk.data(), b.dk.data(), b.dk.size() * 4) || memcmp(a.dq.data(), b.dq.data(), b.dq.size() * 4)) {
    failures++;
    std::printf("FAIL the gradient of batch entry 0 depends on the batch\n");
  }
}

}  // namespace

int main() {
  uint32_t seed = 1;
  for (const Case& c : backward_cases()) check_case(c, seed++);
  check_batch_invariance();
  std::printf(failures ? "%d failures\n" : "attention_backward: all cases agree\n", failures);
  return failures != 0;
}
