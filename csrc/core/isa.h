// Instruction set levels of the CPU kernels.
//
// Every csrc/cpu/*.cc is compiled for the first three levels, with FOVEA_ISA set to one of them, and defines explicit specialisations
// `template <> void kernel<kIsa>(const Params&, ThreadPool&)` of function templates declared `template <Isa> void kernel(...)` in its
// header. dispatch_isa picks the specialisation for the level of this machine at run time:
//   dispatch_isa([&](auto isa) { cpu::softmax<isa()>(params, pool); });
// The last two levels differ from Avx512 in how they multiply bf16 alone: what does has functions of its own for them, compiled once (those
// of csrc/cpu/avx512bf16 with FOVEA_ISA set to Avx512Bf16, the tile kernels of csrc/cpu/avx512 to Avx512), and everything else runs as
// Avx512.
// Everything else in such a file is in an anonymous namespace, and no std template with linkage is used, so that the linker can never pick
// a function compiled for a higher level than the machine has (test/isa_symbols.test.ts looks for such symbols).
#pragma once

#include <type_traits>

namespace fovea {

enum class Isa : int {
  Baseline = 0,    // SSE2 on x86-64, NEON on arm64, 4 lanes
  Avx2 = 1,        // AVX2 + FMA + F16C, 8 lanes
  Avx512 = 2,      // AVX-512 F/BW/VL/DQ, 16 lanes
  Avx512Bf16 = 3,  // and AVX512-BF16: products of pairs of bf16
  Amx = 4,         // and AMX-BF16: products of tiles of bf16; pairs are multiplied slower there than they are converted
};

// The level in use: the best this machine has, lowered by FOVEA_CPU_ISA=baseline|avx2|avx512|avx512bf16|amx. Read once.
Isa current_isa();
// Replaces the level in use (tests); throws ERR_ARGUMENT above what the machine has.
void set_isa(Isa isa);
Isa best_isa();
const char* name_of(Isa isa);
constexpr Isa kAllIsas[] = {Isa::Baseline, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx};

template <class F>
decltype(auto) dispatch_isa(F&& f) {
  switch (current_isa()) {
#if defined(__x86_64__) || defined(_M_X64)
    case Isa::Amx:
    case Isa::Avx512Bf16:
    case Isa::Avx512: return f(std::integral_constant<Isa, Isa::Avx512>{});
    case Isa::Avx2: return f(std::integral_constant<Isa, Isa::Avx2>{});
#endif
    default: return f(std::integral_constant<Isa, Isa::Baseline>{});
  }
}

}  // namespace fovea
