#include "core/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "core/error.h"

namespace fovea {
namespace {

// Whether the processor has bf16 tiles and the kernel lets this process use their registers, which it must be asked for.
bool take_amx() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  unsigned a, b, c, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kAmxBf16) || !(d & kAmxTile)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && take_amx()) return Isa::Amx;
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
  for (Isa isa : kAllIsas) {
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
  constexpr const char* names[] = {"baseline", "avx2", "avx512", "avx512bf16", "amx"};
  return names[static_cast<int>(isa)];
}

}  // namespace fovea
