// Neighborhood attention, its gradients and its two products on a card against plain double-precision loops: small calls for each kernel of
// every dtype and head dim, then random ones.
//   neighborhood [--cases=60] [--seed=1]
#include "cuda/neighborhood_pair.h"

#include "../native/random.h"
#include "neighborhood_call.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

// Normal numbers that `dtype` holds.
std::vector<double> normals(DType dtype, int64_t count) { return rounded(dtype, normals(count)); }

NeighborhoodParams call_of(DType dtype, int64_t batch, int64_t heads_q, int64_t heads_kv, int64_t dim, int64_t dim_v,
                           const std::vector<NeighborhoodAxis>& axes) {
  NeighborhoodParams p{};
  p.dtype = dtype, p.batch = batch, p.heads_q = heads_q, p.heads_kv = heads_kv, p.dim = dim, p.dim_v = dim_v, p.tokens = 1;
  p.scale = 1 / std::sqrt(static_cast<float>(dim));
  for (size_t i = 0; i < axes.size(); i++) p.axis[kNeighborhoodAxes - axes.size() + i] = axes[i];
  for (const NeighborhoodAxis& a : p.axis) p.tokens *= a.length;
  return p;
}

NeighborhoodArrays arrays_of(const NeighborhoodParams& p, bool bias, bool gradients) {
  NeighborhoodArrays a;
  const int64_t rows = p.batch * p.tokens, extra = p.batch * p.extra * p.heads_kv;
  a.q = normals(p.dtype, rows * p.heads_q * p.dim), a.k = normals(p.dtype, rows * p.heads_kv * p.dim);
  a.v = normals(p.dtype, rows * p.heads_kv * p.dim_v);
  a.extra_k = normals(p.dtype, extra * p.dim), a.extra_v = normals(p.dtype, extra * p.dim_v);
  if (bias) a.rpb = normals(DType::F32, p.heads_q * bias_size(p));
  if (gradients) a.dout = normals(p.dtype, rows * p.heads_q * p.dim_v), a.dlse = normals(DType::F32, rows * p.heads_q);
  return a;
}

void check_call(Gpu& gpu, const NeighborhoodParams& p, bool bias, bool gradients, const std::string& what, Report& report) {
  NeighborhoodArrays a = arrays_of(p, bias, gradients);
  neighborhood_reference(p, a);
  NeighborhoodCall call(gpu, p, a);
  call.forward(report, std::string("forward ") + name_of(p.dtype), what);
  if (gradients) call.backward(report, std::string("backward ") + name_of(p.dtype), what);
}

// Blocks of 128 queries run where there are many of them and their windows overlap.
void check_wide(Gpu& gpu, DType dtype, int64_t dim, Report& report) {
  constexpr int64_t kEvery = 7;
  const NeighborhoodParams p = call_of(dtype, 1, 256, 1, dim, dim, {{.length = 128, .kernel = 33}});
  NeighborhoodArrays a = arrays_of(p, false, false);
  neighborhood_reference(p, a, kEvery);
  NeighborhoodCall(gpu, p, a).forward(report, std::string("forward, 128 queries a block, ") + name_of(dtype),
                                      "head dim " + std::to_string(dim), kEvery);
}

NeighborhoodAxis random_axis(int64_t most) {
  NeighborhoodAxis a;
  a.length = uniform(1, most), a.dilation = uniform(1, std::max<int64_t>(1, std::min<int64_t>(3, a.length / 2)));
  const int64_t shortest = a.length / a.dilation;  // of the groups
  a.kernel = uniform(1, std::min<int64_t>(shortest, 9)), a.stride = uniform(1, a.kernel), a.causal = chance(0.3);
  return a;
}

void check_random(Gpu& gpu, uint64_t seed, Report& report) {
  engine.seed(seed);
  constexpr DType dtypes[] = {DType::F32, DType::BF16, DType::F16};
  const int64_t rank = uniform(1, 3), heads_kv = uniform(1, 2);
  std::vector<NeighborhoodAxis> axes;
  for (int64_t i = 0; i < rank; i++) axes.push_back(random_axis(rank == 1 ? 200 : rank == 2 ? 20 : 8));
  NeighborhoodParams p = call_of(dtypes[seed % 3], uniform(1, 2), heads_kv * uniform(1, 3), heads_kv, uniform(1, 80), uniform(1, 80), axes);
  p.extra = chance(0.3) ? uniform(1, 9) : 0;
  check_call(gpu, p, chance(0.4), true, "seed " + std::to_string(seed), report);
}

void check_pair(Gpu& gpu, uint64_t seed, Report& report) {
  engine.seed(seed);
  constexpr int64_t heads = 4, heads_kv = 2, dim = 24;
  const NeighborhoodParams space = call_of(DType::F32, 2, heads, heads_kv, dim, dim, {random_axis(9), random_axis(12)});
  NeighborhoodPairParams p{space, 1, nullptr, nullptr, nullptr, nullptr, space.scale, -3};
  for (const NeighborhoodAxis& a : space.axis) p.slots *= a.kernel;
  const int64_t rows = space.batch * space.tokens;
  const std::vector<double> x = normals(DType::F32, rows * heads * dim), keys = normals(DType::F32, rows * heads_kv * dim);
  const std::vector<double> weights = normals(DType::F32, rows * heads * p.slots);
  std::vector<double> dot(weights.size(), p.unseen), gathered(x.size()), scattered(keys.size());
  for (int64_t r = 0; r < rows; r++)
    for (const Neighbor& seen : neighbors_of(space, r % space.tokens))
      for (int64_t h = 0; h < heads; h++) {
        const int64_t query = r * heads + h, key = (r / space.tokens * space.tokens + seen.token) * heads_kv + h / (heads / heads_kv);
        const auto at = static_cast<size_t>(query * p.slots + seen.slot);
        double sum = 0;
        for (int64_t d = 0; d < dim; d++) {
          const auto of_query = static_cast<size_t>(query * dim + d), of_key = static_cast<size_t>(key * dim + d);
          sum += x[of_query] * keys[of_key];
          gathered[of_query] += p.scale * weights[at] * keys[of_key], scattered[of_key] += p.scale * weights[at] * x[of_query];
        }
        dot[at] = p.scale * sum;
      }
  const auto array = [&](const std::vector<double>& values) {
    return Twin(gpu, DType::F32, values.size(), [&](size_t i) { return values[i]; });
  };
  Twin dx = array(x), dkeys = array(keys), dweights = array(weights);
  p.x = dx.at<float>(Side::Device), p.keys = dkeys.at<float>(Side::Device);
  const auto check = [&](const char* name, const std::vector<double>& want, bool to_weights, auto kernel) {
    Twin blank(gpu, DType::F32, want.size());
    NeighborhoodPairParams call = p;
    call.weights = to_weights ? blank.at<float>(Side::Device) : dweights.at<float>(Side::Device);
    call.out = to_weights ? nullptr : blank.at<float>(Side::Device);
    gpu.run([&](cuda::Stream& stream) { kernel(call, stream); });
    const std::vector<double> got = blank.on_device();
    double worst = 0, high = 0;
    for (size_t i = 0; i < want.size(); i++)
      worst = std::max(worst, std::fabs(got[i] - want[i])), high = std::max(high, std::fabs(want[i]));
    report.add(name, worst / high, tolerance_of(DType::F32), "seed " + std::to_string(seed));
  };
  check("pair dot", dot, true, cuda::neighborhood_dot);
  check("pair gather", gathered, false, cuda::neighborhood_gather);
  check("pair scatter", scattered, false, cuda::neighborhood_scatter);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("neighborhood");
    const int cases = static_cast<int>(argument(argc, argv, "cases", 60));
    const auto seed = static_cast<uint64_t>(argument(argc, argv, "seed", 1));
    for (DType dtype : {DType::F32, DType::BF16, DType::F16})
      for (int64_t dim : {32, 64, 128, 256}) {
        const NeighborhoodParams p =
            call_of(dtype, 1, 2, 1, dim, dim, {{.length = 9, .kernel = 3}, {.length = 13, .kernel = 4, .stride = 2, .dilation = 2}});
        check_call(gpu, p, true, true, "head dim " + std::to_string(dim), report);
        if (dtype != DType::F32 && dim <= 128) check_wide(gpu, dtype, dim, report);
      }
    for (int i = 0; i < std::max(2, cases / 10); i++) check_pair(gpu, seed + static_cast<uint64_t>(i), report);
    for (int i = 0; i < cases; i++) check_random(gpu, seed + static_cast<uint64_t>(i), report);
    return report.finish();
  });
}
