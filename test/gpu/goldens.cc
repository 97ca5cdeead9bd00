// The golden vectors of the library's tests on a card, in f32: attention and its gradients, merges, neighborhood attention and its
// gradients, masks as programs.
//   goldens FOLDER
#include "goldens.h"

#include "cuda/attention_backward.h"
#include "cuda/attention_kernels.h"
#include "cuda/attention_merge.h"
#include "mask_call.h"
#include "mask_golden.h"
#include "neighborhood_call.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

constexpr double kFloor = 0.1;  // of gradients: those of one key are 0 but for rounding

// Largest difference, relative to the largest value; lse has infinities, which must be the same.
double error(const std::vector<double>& got, const std::vector<double>& want, double floor = 0) {
  double worst = 0, high = floor;
  for (size_t i = 0; i < want.size(); i++) {
    if (std::isfinite(want[i])) high = std::max(high, std::fabs(want[i]));
    if (got[i] == want[i]) continue;
    worst = std::max(worst, std::isfinite(got[i] - want[i]) ? std::fabs(got[i] - want[i]) : INFINITY);
  }
  return worst == 0 ? 0 : worst / high;
}

Twin floats(Gpu& gpu, const std::vector<double>& x) {
  return Twin(gpu, DType::F32, x.size(), [&](size_t i) { return x[i]; });
}

AttentionTensor rows(Twin& t, int64_t heads, int64_t length, int64_t dim) {
  return {t.at(Side::Device), heads * length * dim, length * dim, dim, 1};
}

// Strides of an array [b, h, q, kv] whose axes of length 1 are broadcast.
AttentionGrid grid(const Golden& g, const char* key, void* data, DType dtype) {
  int64_t strides[4], pitch = 1;
  for (int a = 3; a >= 0; a--) {
    const int64_t length = g.integer(std::string(key) + ".shape" + std::to_string(a));
    strides[a] = length == 1 ? 0 : pitch;
    pitch *= length;
  }
  return {data, dtype, strides[0], strides[1], strides[2], strides[3]};
}

void check_attention(Gpu& gpu, const Golden& g, Report& report) {
  AttentionParams p{};
  p.dtype = DType::F32, p.batch = g.integer("batch"), p.heads_q = g.integer("heads_q"), p.heads_kv = g.integer("heads_kv");
  p.len_q = g.integer("len_q"), p.len_kv = g.integer("len_kv"), p.dim = g.integer("dim"), p.dim_v = g.integer("dim_v");
  p.scale = static_cast<float>(g.numbers.at("scale")), p.softcap = static_cast<float>(g.numbers.at("softcap"));
  p.causal = g.integer("causal") != 0, p.align = g.integer("bottom_right") ? Align::BottomRight : Align::TopLeft;
  p.window_left = g.integer("window_left"), p.window_right = g.integer("window_right");
  const std::vector<double> want = g.array<double>("out");
  Twin q = floats(gpu, g.array<double>("q")), k = floats(gpu, g.array<double>("k")), v = floats(gpu, g.array<double>("v"));
  Twin bias = floats(gpu, g.array<double>("bias")), out(gpu, DType::F32, want.size()), lse(gpu, DType::F32, g.array<double>("lse").size());
  p.q = rows(q, p.heads_q, p.len_q, p.dim), p.k = rows(k, p.heads_kv, p.len_kv, p.dim), p.v = rows(v, p.heads_kv, p.len_kv, p.dim_v);
  p.out = rows(out, p.heads_q, p.len_q, p.dim_v);
  p.lse = lse.at<float>(Side::Device), p.lse_sb = p.heads_q * p.len_q, p.lse_sh = p.len_q;
  DeviceArrays arrays(gpu);
  if (g.has("bias")) p.bias = grid(g, "bias", bias.at(Side::Device), DType::F32);
  if (g.has("mask")) p.mask = grid(g, "mask", arrays.copy(g.array<uint8_t>("mask")), DType::Bool);
  const cuda::AttentionLimits limits = {static_cast<int32_t>(p.len_q), static_cast<int32_t>(p.len_kv), INT32_MAX, INT32_MAX};
  for (const cuda::AttentionKernel& kernel : cuda::kAttentionKernels) {
    if (kernel.refusal(p)) continue;
    gpu.run([&](cuda::Stream& stream) { kernel.run(p, limits, stream); });
    report.add(std::string("attention ") + kernel.name, error(out.on_device(), want), tolerance_of(DType::F32), g.name);
    report.add(std::string("attention ") + kernel.name + " lse", error(lse.on_device(), g.array<double>("lse")), tolerance_of(DType::F32),
               g.name);
  }
  if (!g.has("dout")) return;
  Twin dout = floats(gpu, g.array<double>("dout")), dq = floats(gpu, g.array<double>("q")), dk = floats(gpu, g.array<double>("k"));
  Twin dv = floats(gpu, g.array<double>("v")), dbias(gpu, DType::F32, g.array<double>("bias").size(), [](size_t) { return 0.; });
  Twin dlse = floats(gpu, g.array<double>("dlse"));
  AttentionGrads grads;
  grads.dout = rows(dout, p.heads_q, p.len_q, p.dim_v), grads.dq = rows(dq, p.heads_q, p.len_q, p.dim);
  grads.dk = rows(dk, p.heads_kv, p.len_kv, p.dim), grads.dv = rows(dv, p.heads_kv, p.len_kv, p.dim_v);
  if (g.has("dlse")) grads.dlse = dlse.at<float>(Side::Device);
  if (g.has("dbias")) grads.dbias = grid(g, "bias", dbias.at(Side::Device), DType::F32);
  gpu.run([&](cuda::Stream& stream) { cuda::attention_backward(p, limits, grads, stream); });
  const auto add = [&](const char* key, const Twin& got) {
    if (g.has(key))
      report.add(std::string("attention ") + key, error(got.on_device(), g.array<double>(key), kFloor), tolerance_of(DType::F32), g.name);
  };
  add("dq", dq), add("dk", dk), add("dv", dv), add("dbias", dbias);
}

void check_merge(Gpu& gpu, const Golden& g, Report& report) {
  AttentionMergeParams p{};
  p.dtype = DType::F32, p.count = g.integer("count"), p.rows = g.integer("rows"), p.dim = g.integer("dim");
  DeviceArrays arrays(gpu);
  std::vector<const void*> outs;
  std::vector<const float*> lses;
  const auto copy = [&](const std::string& key) {
    const std::vector<double> wide = g.array<double>(key);
    return arrays.copy(std::vector<float>(wide.begin(), wide.end()));
  };
  for (int64_t i = 0; i < p.count; i++) outs.push_back(copy("out" + std::to_string(i))), lses.push_back(copy("lse" + std::to_string(i)));
  Twin out(gpu, DType::F32, static_cast<size_t>(p.rows * p.dim)), lse(gpu, DType::F32, static_cast<size_t>(p.rows));
  p.outs = outs.data(), p.lses = lses.data(), p.out = out.at(Side::Device), p.lse = lse.at<float>(Side::Device);
  gpu.run([&](cuda::Stream& stream) { cuda::attention_merge(p, stream); });
  report.add("merge", error(out.on_device(), g.array<double>("out")), tolerance_of(DType::F32), g.name);
  report.add("merge lse", error(lse.on_device(), g.array<double>("lse")), tolerance_of(DType::F32), g.name);
}

void check_neighborhood(Gpu& gpu, const Golden& g, Report& report) {
  NeighborhoodParams p{};
  p.dtype = DType::F32, p.batch = g.integer("batch"), p.heads_q = g.integer("heads_q"), p.heads_kv = g.integer("heads_kv");
  p.dim = g.integer("dim"), p.dim_v = g.integer("dim_v"), p.extra = g.integer("extra"), p.tokens = 1;
  p.scale = static_cast<float>(g.numbers.at("scale"));
  const int64_t rank = g.integer("rank");
  for (int64_t i = 0; i < rank; i++) {
    const auto of = [&](const char* key) { return g.integer(key + std::to_string(i)); };
    NeighborhoodAxis& a = p.axis[kNeighborhoodAxes - rank + i];
    a.length = of("length"), a.kernel = of("kernel"), a.stride = of("stride"), a.dilation = of("dilation"), a.causal = of("causal") != 0;
    p.tokens *= a.length;
  }
  const auto array = [&](const char* key) { return g.array<double>(key); };
  NeighborhoodArrays a{array("q"),    array("k"),        array("v"),        array("extra_k"), array("extra_v"), array("rpb"),
                       array("dout"), array("dlse"),     array("out"),      array("lse"),     array("dq"),      array("dk"),
                       array("dv"),   array("dextra_k"), array("dextra_v"), array("drpb")};
  NeighborhoodCall call(gpu, p, a);
  call.forward(report, "neighborhood", g.name);
  if (!a.dout.empty()) call.backward(report, "neighborhood", g.name);
}

void check_mask(Gpu& gpu, const Golden& g, Report& report) {
  const MaskGolden mask(g);
  if (const char* reason = cuda::mask_bits_refusal(mask.plan())) return report.refused("mask", reason);
  constexpr int32_t kBlockQ = 16, kBlockKv = 24;
  const int64_t length = g.integer("length"), columns = (length + kBlockKv - 1) / kBlockKv;
  const std::vector<uint8_t> shown = g.array<uint8_t>("shown");
  MaskCall call(mask.plan(), kBlockQ, kBlockKv, length, length, false);
  gpu.run([&](cuda::Stream& stream) { call.evaluate(stream); });
  int64_t wrong = 0;
  for (int64_t i = 0; i < length; i++)
    for (int64_t j = 0; j < length; j++) {
      const int64_t tile = i / kBlockQ * columns + j / kBlockKv, q = i % kBlockQ;
      const int32_t id = call.ids[static_cast<size_t>(tile)];
      const bool bit = id < 0 ? id == -1 : call.tile(tile)[j % kBlockKv * (kBlockQ / 8) + q / 8] >> q % 8 & 1;
      wrong += bit != (shown[static_cast<size_t>(i * length + j)] != 0);
    }
  report.add("mask", static_cast<double>(wrong), 0, g.name);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("goldens");
    for (const Golden& g : Golden::read(argc > 1 ? argv[1] : "goldens")) {
      if (g.kind == "attention") check_attention(gpu, g, report);
      else if (g.kind == "merge") check_merge(gpu, g, report);
      else if (g.kind == "neighborhood") check_neighborhood(gpu, g, report);
      else if (g.kind == "mask") check_mask(gpu, g, report);
      else report.failed(g.kind, g.name + " is of a kind that no check knows");
    }
    return report.finish();
  });
}
