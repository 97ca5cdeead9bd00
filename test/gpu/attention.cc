// Attention forward on a card against plain double-precision loops: random calls over every feature of AttentionParams, a prompt's and a
// decoding step's shapes in turn, with the calls that a kernel of the table refuses counted.
//   attention [--cases=200] [--seed=1]
#include "attention_kernels.h"

#include "../native/attention_case.h"
#include "gpu.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

// The call with all it points to on the device.
struct DeviceCall {
  DeviceArrays arrays;
  AttentionParams p;
  BlockMaskView block{};
  cuda::AttentionLimits limits{};

  DeviceCall(Gpu& gpu, const Case& c) : arrays(gpu), p(c.p) {
    p.q.data = arrays.copy(c.q.bytes), p.k.data = arrays.copy(c.k.bytes), p.v.data = arrays.copy(c.v.bytes);
    p.bias.data = arrays.copy(c.bias), p.mask.data = arrays.copy(c.mask);
    p.kv_lengths = arrays.copy(c.kv_lengths), p.cu_q = arrays.copy(c.cu_q), p.cu_kv = arrays.copy(c.cu_kv);
    p.q_rows = arrays.copy(c.q_rows), p.kv_rows = arrays.copy(c.kv_rows), p.page_table = arrays.copy(c.page_table);
    if (c.p.block_mask) {
      block = c.block;
      block.row_begin = arrays.copy(c.row_begin), block.bits = arrays.copy(c.bits);
      block.columns = arrays.copy(c.columns), block.tiles = arrays.copy(c.tiles);
      p.block_mask = &block;
    }
    const auto rows = static_cast<int32_t>(p.page_table ? c.k.b : c.k.l);
    limits = {static_cast<int32_t>(c.q.l), rows, INT32_MAX, INT32_MAX};
    if (p.block_mask) limits.sequence_q = static_cast<int32_t>(block.q_length), limits.sequence_kv = static_cast<int32_t>(block.kv_length);
  }
};

void check_case(Gpu& gpu, uint64_t seed, bool decode, Report& report) {
  engine.seed(seed);
  Case c;
  make(c, decode);
  const Expected expected = reference(c);
  DeviceCall call(gpu, c);
  const std::vector<uint8_t> untouched = c.out.bytes;
  for (const AttentionKernel& kernel : kAttentionKernels) {
    const std::string name = std::string(kernel.name) + " " + name_of(c.p.dtype);
    if (const char* reason = kernel.refusal(call.p)) {
      report.refused(name, reason);
      continue;
    }
    const std::string what = "seed " + std::to_string(seed) + (decode ? ", decoding: " : ": ") + c.text;
    std::vector<uint8_t> first;
    for (int run = 0; run < 2; run++) {
      c.out.bytes = untouched;
      std::fill(c.lse.begin(), c.lse.end(), 12345.f);
      const DeviceArray out(gpu, c.out.bytes.data(), c.out.bytes.size()), lse(gpu, c.lse.data(), c.lse.size() * sizeof(float));
      call.p.out.data = out.data(), call.p.lse = lse.data<float>();
      gpu.run([&](cuda::Stream& stream) { kernel.run(call.p, call.limits, stream); });
      out.download(c.out.bytes.data()), lse.download(c.lse.data());
      if (run == 0) first = c.out.bytes;
    }
    double lse_error;
    const double error = compare(c, expected, lse_error);
    report.add(name, error, tolerance(c, expected), what);
    report.add(name + " lse", lse_error, lse_tolerance(c), what);
    report.add(name + " twice", first == c.out.bytes ? 0 : INFINITY, 0, what);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("attention");
    const int cases = static_cast<int>(argument(argc, argv, "cases", 200));
    const auto seed = static_cast<uint64_t>(argument(argc, argv, "seed", 1));
    for (int i = 0; i < cases; i++) check_case(gpu, seed + static_cast<uint64_t>(i), i % 4 == 3, report);
    return report.finish();
  });
}
