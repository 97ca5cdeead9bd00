// Attention forward on a card against plain double-precision loops: a small call for each kernel of every dtype and head dim, then random
// calls over every feature of AttentionParams, a prompt's and a decoding step's shapes in turn, with the calls that a kernel of the table
// refuses counted.
//   attention [--cases=200] [--seed=1]
#include "cuda/attention_kernels.h"

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

// Both kernels of the table on a call, twice each; `c` is what the reference takes.
void check_call(Gpu& gpu, Case& c, DeviceCall& call, const std::string& what, Report& report) {
  const Expected expected = reference(c);
  const std::vector<uint8_t> untouched = c.out.bytes;
  for (const cuda::AttentionKernel& kernel : cuda::kAttentionKernels) {
    const std::string name = std::string(kernel.name) + " " + name_of(c.p.dtype);
    if (const char* reason = kernel.refusal(call.p)) {
      report.refused(name, reason);
      continue;
    }
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

void check_random(Gpu& gpu, uint64_t seed, bool decode, Report& report) {
  engine.seed(seed);
  Case c;
  make(c, decode);
  DeviceCall call(gpu, c);
  check_call(gpu, c, call, "seed " + std::to_string(seed) + (decode ? ", decoding: " : ": ") + c.text, report);
}

// A call that few queries, plain keys and a head dim take to a kernel of their own; with `score`, s - slope (query - key) by a program,
// which the reference has as a bias.
void check_kernel(Gpu& gpu, DType dtype, int64_t dim, bool score, Report& report) {
  engine.seed(static_cast<uint64_t>(dim));
  Case c;
  AttentionParams& p = c.p;
  p.dtype = dtype, p.batch = 1, p.heads_q = 2, p.heads_kv = 1, p.len_q = 5, p.len_kv = 600, p.dim = p.dim_v = dim;
  p.scale = 1 / std::sqrt(static_cast<float>(dim));
  c.q.make(dtype, 1, p.heads_q, p.len_q, dim, 1), c.k.make(dtype, 1, 1, p.len_kv, dim, 1), c.v.make(dtype, 1, 1, p.len_kv, dim, 1);
  c.out.make(dtype, 1, p.heads_q, p.len_q, dim, 1);
  p.q = c.q.view, p.k = c.k.view, p.v = c.v.view, p.out = c.out.view;
  c.lse.resize(static_cast<size_t>(p.heads_q * p.len_q));
  p.lse_sh = p.len_q, p.lse_sb = p.len_q * p.heads_q;

  const float slope = 0.03f;
  if (score) {
    c.bias.resize(static_cast<size_t>(p.len_q * p.len_kv) * sizeof(float));
    for (int64_t i = 0; i < p.len_q; i++)
      for (int64_t j = 0; j < p.len_kv; j++) reinterpret_cast<float*>(c.bias.data())[i * p.len_kv + j] = -slope * static_cast<float>(i - j);
    p.bias = {c.bias.data(), DType::F32, 0, 0, p.len_kv, 1};
  }
  DeviceCall call(gpu, c);
  using enum MaskOp;
  const MaskInstr code[] = {{UniformF, 0, 0, 0},   {Query, 0, 0, 0}, {Key, 0, 0, 0},   {SubI, 1, 2, 0},
                            {IntToFloat, 3, 0, 0}, {MulF, 0, 4, 0},  {Score, 0, 0, 0}, {SubF, 6, 5, 0}};
  int32_t uniform;
  std::memcpy(&uniform, &slope, sizeof slope);
  const MaskProgram program = {code, 8, 1, 2, 3, 7, nullptr, 0, nullptr, 0, &uniform, 1};
  if (score) call.p.bias = {}, call.p.score = &program;
  check_call(gpu, c, call, "head dim " + std::to_string(dim) + (score ? ", a score program" : ""), report);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("attention");
    const int cases = static_cast<int>(argument(argc, argv, "cases", 200));
    const auto seed = static_cast<uint64_t>(argument(argc, argv, "seed", 1));
    for (DType dtype : {DType::F32, DType::BF16, DType::F16})
      for (int64_t dim : {32, 64, 128, 256})
        for (bool score : {false, true}) check_kernel(gpu, dtype, dim, score, report);
    for (int i = 0; i < cases; i++) check_random(gpu, seed + static_cast<uint64_t>(i), i % 4 == 3, report);
    return report.finish();
  });
}
