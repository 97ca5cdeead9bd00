// Runs of a kernel that must agree: every instruction set of the machine, with one thread and with two.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "core/isa.h"
#include "core/thread_pool.h"

namespace {

int failures = 0;

// Calls f() at every level up to `highest` that the machine has.
template <class F>
void at_each_level(fovea::Isa highest, F&& f) {
  for (fovea::Isa isa : fovea::kAllIsas) {
    if (isa > highest || isa > fovea::best_isa()) break;
    fovea::set_isa(isa);
    f();
  }
}

// The result of run() with one thread; with two it must be the same.
template <class Run>
auto same_for_threads(const char* name, Run&& run) {
  fovea::ThreadPool::instance().set_threads(1);
  auto one = run();
  fovea::ThreadPool::instance().set_threads(2);
  if (!(run() == one)) failures++, std::printf("FAIL %s, %s: 1 and 2 threads differ\n", name, name_of(fovea::current_isa()));
  return one;
}

// Allows errors of `tolerance` times the largest value wanted.
inline void expect_close(const char* name, const char* what, const std::vector<double>& got, const std::vector<double>& want,
                         double tolerance) {
  double high = 1e-3, worst = got.size() == want.size() ? 0 : INFINITY;
  for (double x : want) high = std::max(high, std::fabs(x));
  for (size_t i = 0; i < want.size() && std::isfinite(worst); i++) {
    const double difference = got[i] == want[i] ? 0 : std::fabs(got[i] - want[i]);
    worst = std::isfinite(difference) ? std::max(worst, difference / high) : INFINITY;
  }
  if (worst <= tolerance) return;
  failures++;
  std::printf("FAIL %s, %s: %s is off by %.2g of its largest value\n", name, name_of(fovea::current_isa()), what, worst);
}

inline void expect_equal(const char* name, const char* what, const std::vector<double>& got, const std::vector<double>& want) {
  for (size_t i = 0; i < want.size() || i < got.size(); i++) {
    if (i < got.size() && i < want.size() && (got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i])))) continue;
    failures++;
    std::printf("FAIL %s, %s: %s has %g at %zu, expected %g\n", name, name_of(fovea::current_isa()), what, i < got.size() ? got[i] : NAN, i,
                i < want.size() ? want[i] : NAN);
    return;
  }
}

}  // namespace
