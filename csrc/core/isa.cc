#include "core/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"

namespace fovea {
namespace {

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return Isa::Avx512Bf16;
  if (avx512) return Isa::Avx512;
  if (avx2) return Isa::Avx2;
#endif
  return Isa::Baseline;
}

Isa initial() {
  const char* wanted = std::getenv("FOVEA_CPU_ISA");
  if (!wanted || !*wanted) return best_isa();
  std::string available;
  for (Isa isa : {Isa::Baseline, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16}) {
    if (isa > best_isa()) break;
    if (std::strcmp(wanted, name_of(isa)) == 0) return isa;
    available += (available.empty() ? "" : ", ") + std::string(name_of(isa));
  }
  fail("ERR_ARGUMENT", "FOVEA_CPU_ISA: got '", wanted, "', expected one of the levels this machine has: ", available);
}

std::atomic<Isa>& level() {
  static std::atomic<Isa> isa{initial()};
  return isa;
}

}  // namespace

Isa best_isa() {
  static const Isa isa = detect();
  return isa;
}

Isa current_isa() { return level().load(std::memory_order_relaxed); }

void set_isa(Isa isa) {
  check(isa <= best_isa(), "ERR_ARGUMENT", "CPU level ", name_of(isa), " is not available; the best here is ", name_of(best_isa()));
  level().store(isa, std::memory_order_relaxed);
}

const char* name_of(Isa isa) {
  constexpr const char* names[] = {"baseline", "avx2", "avx512", "avx512bf16"};
  return names[static_cast<int>(isa)];
}

}  // namespace fovea
