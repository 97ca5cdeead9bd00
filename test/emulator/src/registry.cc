#include "registry.h"

#include <cstdlib>

#include "ops.h"

namespace fovea::emulator {

#if defined(__x86_64__) && !defined(FOVEA_EMULATOR_BASELINE_ONLY)
#define FOVEA_ISAS(X) X(isa_baseline) X(isa_avx2)
#else
#define FOVEA_ISAS(X) X(isa_baseline)
#endif

#define FOVEA_DECLARE(isa)                                                                                                              \
  namespace isa {                                                                                                                       \
  void register_integer(Registry&), register_float(Registry&), register_half(Registry&), register_convert(Registry&),                   \
      register_compare(Registry&), register_move(Registry&), register_control(Registry&), register_memory(Registry&),                   \
      register_atomic(Registry&), register_async(Registry&), register_collective(Registry&), register_matrix(Registry&);                \
  static void register_all(Registry& r) {                                                                                               \
    for (auto* part : {&register_integer, &register_float, &register_half, &register_convert, &register_compare, &register_move,        \
                       &register_control, &register_memory, &register_atomic, &register_async, &register_collective, &register_matrix}) \
      part(r);                                                                                                                          \
  }                                                                                                                                     \
  }
FOVEA_ISAS(FOVEA_DECLARE)
#undef FOVEA_DECLARE

void Registry::add(const char* key, const OpEntry& entry) { table_[key] = entry; }

const OpEntry* Registry::find(std::string_view key) const {
  const auto it = table_.find(key);
  return it == table_.end() ? nullptr : &it->second;
}

const Registry& registry() {
  static const Registry* table = [] {
    auto* r = new Registry;
#if defined(__x86_64__) && !defined(FOVEA_EMULATOR_BASELINE_ONLY)
    const char* forced = std::getenv("FOVEA_EMULATOR_ISA");
    const bool baseline = forced && std::string_view(forced) == "baseline";
    if (!baseline && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      isa_avx2::register_all(*r);
    } else {
      isa_baseline::register_all(*r);
    }
#else
    isa_baseline::register_all(*r);
#endif
    return r;
  }();
  return *table;
}

}  // namespace fovea::emulator
