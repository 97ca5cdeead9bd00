// Attention forward against a double-precision reference: random shapes and every feature of AttentionParams, at every instruction set the
// machine has, with 1 and 3 threads giving the same bits. Usage: native_attention [cases] [seed]
#include "cpu/attention.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "attention_case.h"
#include "core/isa.h"
#include "cpu/attention_amx.h"
#include "cpu/attention_decode.h"
#include "cpu/attention_decode_amx.h"

namespace {

// The kernel of the level in use; the few-row kernels with `decode`, where they take the call.
void forward(const AttentionParams& p, bool decode) {
  ThreadPool& pool = ThreadPool::instance();
#if defined(__x86_64__)
  if (decode && !cpu::attention_decode_amx_refusal(p)) return cpu::attention_decode_amx(p, pool, nullptr);
  if ((!decode || cpu::attention_decode_refusal(p)) && !cpu::attention_amx_refusal(p)) return cpu::attention_amx(p, nullptr, pool, nullptr);
#endif
  dispatch_isa([&](auto isa) {
    if (decode && !cpu::attention_decode_refusal(p)) cpu::attention_decode<isa()>(p, pool, nullptr);
    else cpu::attention_forward<isa()>(p, nullptr, pool, nullptr);
  });
}

int run_case(uint64_t seed, bool decode) {
  engine.seed(seed);
  Case c;
  make(c, decode);
  Expected expected = reference(c);
  int failures = 0;
  for (int level = 0; level <= static_cast<int>(best_isa()); level++) {
    set_isa(static_cast<Isa>(level));
    std::vector<uint8_t> first;
    std::vector<float> first_lse;
    for (int threads : {1, 3}) {
      ThreadPool::instance().set_threads(threads);
      std::fill(c.lse.begin(), c.lse.end(), 12345.f);
      forward(c.p, decode);
      double lse_error, error = compare(c, expected, lse_error);
      if (!(error <= tolerance(c, expected)) || !(lse_error <= lse_tolerance(c))) {
        std::printf("FAIL seed %lu %s: error %.3g, lse %.3g at level %s: %s\n", seed, decode ? "decode" : "", error, lse_error,
                    name_of(current_isa()), c.text.c_str());
        failures++;
      }
      if (threads == 1) first = c.out.bytes, first_lse = c.lse;
      else if (first != c.out.bytes || std::memcmp(first_lse.data(), c.lse.data(), c.lse.size() * 4)) {
        std::printf("FAIL seed %lu: bits differ with %d threads at level %s: %s\n", seed, threads, name_of(current_isa()), c.text.c_str());
        failures++;
      }
    }
  }
  return failures;
}

}  // namespace

int main(int argc, char** argv) {
  int cases = argc > 1 ? std::atoi(argv[1]) : 200;
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  int failures = 0;
  for (int i = 0; i < cases && failures < 20; i++) failures += run_case(seed + static_cast<uint64_t>(i), i % 4 == 3);
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures != 0;
}
