// Neighborhood attention and its gradients against plain double-precision loops: a table of cases and random ones, by the tile kernel and,
// where it takes the call, the shift kernel. Usage: native_neighborhood [random cases] [seed]
#include "cpu/neighborhood.h"

#include <cstdlib>
#include <string>

#include "exact_view.h"
#include "levels.h"
#include "neighborhood_reference.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a small image that both kernels take.
struct Case {
  std::string name;
  std::vector<NeighborhoodAxis> axes = {{.length = 11, .kernel = 5}, {.length = 37, .kernel = 7}};
  DType dtype = DType::F32;
  int64_t batch = 2, heads_q = 2, heads_kv = 1, dim = 24, dim_v = 19, extra = 0;
  bool bias = false, dlse = true;
  Layout layout = {};
};

const std::vector<Case> kCases = {
    {.name = "plain"},
    {.name = "one token", .axes = {{.length = 1}}, .batch = 1, .heads_q = 1},
    {.name = "one dim", .dim = 1, .dim_v = 1},
    {.name = "whole vectors", .dim = 32, .dim_v = 64, .dlse = false},
    {.name = "wide", .axes = {{.length = 4, .kernel = 3}, {.length = 29, .kernel = 3}}, .dim = 256, .dim_v = 255},
    {.name = "bf16", .dtype = DType::BF16},
    {.name = "f16", .dtype = DType::F16},
    {.name = "grouped heads", .heads_q = 6, .heads_kv = 2},
    {.name = "a line", .axes = {{.length = 97, .kernel = 9}}},
    {.name = "a line, long window", .axes = {{.length = 211, .kernel = 101}}, .batch = 1},
    {.name = "a volume", .axes = {{.length = 5, .kernel = 3}, {.length = 6, .kernel = 5}, {.length = 27, .kernel = 5}}, .batch = 1},
    {.name = "windows of everything", .axes = {{.length = 7, .kernel = 7}, {.length = 13, .kernel = 13}}},
    {.name = "even windows", .axes = {{.length = 9, .kernel = 4}, {.length = 35, .kernel = 6}}},
    {.name = "windows of one", .axes = {{.length = 9}, {.length = 35}}},
    {.name = "long rows", .axes = {{.length = 5, .kernel = 3}, {.length = 301, .kernel = 3}}, .batch = 1},
    {.name = "many rows", .axes = {{.length = 131, .kernel = 3}, {.length = 17, .kernel = 3}}, .batch = 1, .heads_q = 1},
    {.name = "groups of unequal length", .axes = {{.length = 17, .kernel = 3, .dilation = 3}, {.length = 61, .kernel = 5, .dilation = 2}}},
    {.name = "a dilated volume",
     .axes = {{.length = 5, .kernel = 2, .dilation = 2},
              {.length = 7, .kernel = 3, .dilation = 2},
              {.length = 47, .kernel = 3, .dilation = 3}},
     .batch = 1},
    {.name = "causal", .axes = {{.length = 11, .kernel = 5, .causal = true}, {.length = 37, .kernel = 7, .causal = true}}},
    {.name = "causal rows", .axes = {{.length = 11, .kernel = 5}, {.length = 37, .kernel = 7, .causal = true}}},
    {.name = "causal columns", .axes = {{.length = 11, .kernel = 5, .causal = true}, {.length = 37, .kernel = 7}}},
    {.name = "causal, dilated",
     .axes = {{.length = 13, .kernel = 3, .dilation = 2, .causal = true}, {.length = 50, .kernel = 4, .dilation = 3, .causal = true}}},
    {.name = "strides", .axes = {{.length = 11, .kernel = 5, .stride = 3}, {.length = 37, .kernel = 7, .stride = 2}}},
    {.name = "a stride of columns", .axes = {{.length = 19, .kernel = 5, .stride = 5}, {.length = 37, .kernel = 7}}},
    {.name = "a stride, causal and dilated",
     .axes = {{.length = 23, .kernel = 5, .stride = 3, .dilation = 2, .causal = true}, {.length = 37, .kernel = 7, .causal = true}}},
    {.name = "one extra key", .extra = 1},
    {.name = "extra keys", .dtype = DType::BF16, .heads_q = 4, .heads_kv = 2, .extra = 101},
    {.name = "bias", .bias = true},
    {.name = "bias, causal and dilated",
     .axes = {{.length = 13, .kernel = 3, .dilation = 2, .causal = true}, {.length = 50, .kernel = 4, .dilation = 3, .causal = true}},
     .heads_q = 4,
     .heads_kv = 2,
     .bias = true},
    {.name = "bias, volume, strides",
     .axes = {{.length = 4, .kernel = 3, .stride = 2}, {.length = 9, .kernel = 3, .stride = 3}, {.length = 27, .kernel = 5}},
     .batch = 1,
     .bias = true},
    {.name = "bias and extra keys", .extra = 3, .bias = true},
    {.name = "padded rows", .layout = {.padding = 3}},
    {.name = "padded rows of bf16", .dtype = DType::BF16, .heads_q = 4, .heads_kv = 2, .layout = {.padding = 1}},
    {.name = "every second element", .dim = 32, .dim_v = 32, .layout = {.step = 2}},
    {.name = "every second element of f16", .dtype = DType::F16, .extra = 2, .layout = {.step = 2}},
    {.name = "heads first", .heads_q = 4, .heads_kv = 2, .extra = 2, .layout = {.turned = true}},
};

// Normal numbers that `dtype` holds.
std::vector<double> normals(DType dtype, int64_t count) { return rounded(dtype, normals(count)); }

NeighborhoodAxis random_axis(int64_t most) {
  NeighborhoodAxis a;
  a.length = uniform(1, most), a.dilation = chance(0.6) ? 1 : uniform(1, std::min<int64_t>(3, a.length));
  a.kernel = uniform(1, std::min<int64_t>(a.length / a.dilation, 9));
  a.stride = chance(0.7) ? 1 : uniform(1, a.kernel), a.causal = chance(0.3);
  return a;
}

Case random_case(uint64_t seed) {
  constexpr DType dtypes[] = {DType::F32, DType::BF16, DType::F16};
  engine.seed(seed);
  Case c{.name = "seed " + std::to_string(seed), .axes = {}, .dtype = dtypes[uniform(0, 2)]};
  const int64_t rank = uniform(1, 3);
  for (int64_t i = 0; i < rank; i++) c.axes.push_back(random_axis(i + 1 == rank ? 70 : rank == 3 ? 6 : 20));
  c.batch = uniform(1, 2), c.heads_kv = uniform(1, 2), c.heads_q = c.heads_kv * uniform(1, 3);
  c.dim = uniform(1, 40), c.dim_v = chance(0.5) ? c.dim : uniform(1, 40);
  c.extra = chance(0.2) ? uniform(1, 9) : 0, c.bias = chance(0.4), c.dlse = chance(0.5);
  c.layout = {.turned = chance(0.3), .padding = chance(0.3) ? uniform(1, 3) : 0, .step = chance(0.1) ? 2 : 1};
  return c;
}

struct Output {
  const char* name;
  const std::vector<double>* want;
  View got;
  bool operator==(const Output& other) const { return got == other.got; }
};

// A case with its operands and what should become of them.
class Problem {
 public:
  explicit Problem(const Case& c) : c_(c) {
    p_.dtype = c.dtype, p_.batch = c.batch, p_.heads_q = c.heads_q, p_.heads_kv = c.heads_kv, p_.dim = c.dim, p_.dim_v = c.dim_v;
    p_.scale = 1 / std::sqrt(static_cast<float>(c.dim)), p_.extra = c.extra, p_.tokens = 1;
    for (size_t i = 0; i < c.axes.size(); i++) p_.axis[kNeighborhoodAxes - c.axes.size() + i] = c.axes[i];
    for (const NeighborhoodAxis& a : p_.axis) p_.tokens *= a.length;
    const int64_t rows = p_.batch * p_.tokens, extra = p_.batch * p_.extra * p_.heads_kv;
    a_.q = normals(c.dtype, rows * c.heads_q * c.dim), a_.k = normals(c.dtype, rows * c.heads_kv * c.dim);
    a_.v = normals(c.dtype, rows * c.heads_kv * c.dim_v), a_.dout = normals(c.dtype, rows * c.heads_q * c.dim_v);
    a_.extra_k = normals(c.dtype, extra * c.dim), a_.extra_v = normals(c.dtype, extra * c.dim_v);
    if (c.bias) a_.rpb = normals(DType::F32, c.heads_q * bias_size(p_));
    if (c.dlse) a_.dlse = normals(DType::F32, rows * c.heads_q);
    neighborhood_reference(p_, a_);

    q_ = lattice(c.heads_q, c.dim, &a_.q), k_ = lattice(c.heads_kv, c.dim, &a_.k), v_ = lattice(c.heads_kv, c.dim_v, &a_.v);
    out_ = lattice(c.heads_q, c.dim_v, &a_.out), dout_ = lattice(c.heads_q, c.dim_v, &a_.dout);
    extra_k_ = extra_rows(c.dim, &a_.extra_k), extra_v_ = extra_rows(c.dim_v, &a_.extra_v);
    rpb_ = floats(a_.rpb), lse_ = floats(a_.lse), dlse_ = floats(a_.dlse);
    p_.q = bound(q_), p_.k = bound(k_), p_.v = bound(v_);
    if (c.extra) p_.extra_k = bound_extra(extra_k_), p_.extra_v = bound_extra(extra_v_);
    if (c.bias) p_.rpb = rpb_.data<float>();
  }

  const NeighborhoodParams& params() const { return p_; }

  // kernel(params, pool)
  template <class Kernel>
  std::vector<Output> forward(Kernel&& kernel) {
    std::vector<Output> outputs;
    outputs.push_back({"out", &a_.out, lattice(c_.heads_q, c_.dim_v)});
    outputs.push_back({"lse", &a_.lse, View(DType::F32, {static_cast<int64_t>(a_.lse.size())})});
    NeighborhoodParams p = p_;
    p.out = bound(outputs[0].got), p.lse = outputs[1].got.data<float>();
    kernel(p, ThreadPool::instance());
    return outputs;
  }

  // kernel(params, gradients, pool)
  template <class Kernel>
  std::vector<Output> backward(Kernel&& kernel) {
    std::vector<Output> outputs;
    outputs.push_back({"dq", &a_.dq, lattice(c_.heads_q, c_.dim)});
    outputs.push_back({"dk", &a_.dk, lattice(c_.heads_kv, c_.dim)});
    outputs.push_back({"dv", &a_.dv, lattice(c_.heads_kv, c_.dim_v)});
    outputs.push_back({"dextra_k", &a_.dextra_k, extra_rows(c_.dim)});
    outputs.push_back({"dextra_v", &a_.dextra_v, extra_rows(c_.dim_v)});
    outputs.push_back({"drpb", &a_.drpb, View(DType::F32, {static_cast<int64_t>(a_.drpb.size())})});
    NeighborhoodParams p = p_;
    p.out = bound(out_), p.lse = lse_.data<float>();
    NeighborhoodGrads g;
    g.dout = bound(dout_);
    if (c_.dlse) g.dlse = dlse_.data<float>();
    g.dq = bound(outputs[0].got), g.dk = bound(outputs[1].got), g.dv = bound(outputs[2].got);
    if (c_.extra) g.dextra_k = bound_extra(outputs[3].got), g.dextra_v = bound_extra(outputs[4].got);
    if (c_.bias) g.drpb = outputs[5].got.data<float>();
    kernel(p, g, ThreadPool::instance());
    return outputs;
  }

 private:
  View view(std::vector<int64_t> shape, const std::vector<double>* values) const {
    return values ? View(c_.dtype, std::move(shape), *values, c_.layout) : View(c_.dtype, std::move(shape), c_.layout);
  }
  View lattice(int64_t heads, int64_t dim, const std::vector<double>* values = nullptr) const {
    return view({c_.batch, p_.axis[0].length, p_.axis[1].length, p_.axis[2].length, heads, dim}, values);
  }
  View extra_rows(int64_t dim, const std::vector<double>* values = nullptr) const {
    return view({c_.batch, c_.extra, c_.heads_kv, dim}, values);
  }
  static View floats(const std::vector<double>& values) { return View(DType::F32, {static_cast<int64_t>(values.size())}, values); }

  static NeighborhoodTensor bound(View& v) {
    return {v.data(), v.stride(0), {v.stride(1), v.stride(2), v.stride(3)}, v.stride(4), v.stride(5)};
  }
  static NeighborhoodTensor bound_extra(View& v) { return {v.data(), v.stride(0), {0, 0, v.stride(1)}, v.stride(2), v.stride(3)}; }

  const Case& c_;
  NeighborhoodParams p_{};
  NeighborhoodArrays a_;
  View q_, k_, v_, out_, dout_, extra_k_, extra_v_, rpb_, lse_, dlse_;
};

void check_outputs(const Case& c, const char* kernel, const std::vector<Output>& outputs) {
  const double tolerance = c.dtype == DType::F32 ? 2e-5 : c.dtype == DType::BF16 ? 2e-2 : 4e-3;
  const std::string name = c.name + ", " + kernel;
  for (const Output& o : outputs) {
    expect_close(name.c_str(), o.name, o.got.values(), *o.want, tolerance);
    if (!o.got.intact()) failures++, std::printf("FAIL %s: wrote between the rows of %s\n", name.c_str(), o.name);
  }
}

template <Isa level>
void check_kernels(const Case& c, Problem& problem, bool shift) {
  const auto check = [&](const char* kernel, auto&& run) { check_outputs(c, kernel, same_for_threads(c.name.c_str(), run)); };
  check("tiles", [&] { return problem.forward([](auto& p, auto& pool) { cpu::neighborhood_tiles<level>(p, pool, nullptr); }); });
  check("tiles, backward", [&] {
    return problem.backward([](auto& p, auto& g, auto& pool) { cpu::neighborhood_tiles_backward<level>(p, g, pool, nullptr); });
  });
  if (!shift) return;
  check("shift", [&] { return problem.forward([](auto& p, auto& pool) { cpu::neighborhood_shift<level>(p, pool, nullptr); }); });
  check("shift, backward", [&] {
    return problem.backward([](auto& p, auto& g, auto& pool) { cpu::neighborhood_shift_backward<level>(p, g, pool, nullptr); });
  });
}

// Whether the shift kernel took it.
bool check_case(const Case& c) {
  Problem problem(c);
  const bool shift = !cpu::neighborhood_shift_refusal(problem.params());
  at_each_level(Isa::Avx512, [&] { dispatch_isa([&](auto isa) { check_kernels<isa()>(c, problem, shift); }); });
  return shift;
}

}  // namespace

int main(int argc, char** argv) {
  const int random_cases = argc > 1 ? std::atoi(argv[1]) : 60;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  int cases = 0, shifted = 0;
  for (const Case& c : kCases) shifted += check_case(c), cases++;
  for (int i = 0; i < random_cases && failures < 20; i++) shifted += check_case(random_case(seed + static_cast<uint64_t>(i))), cases++;
  if (shifted == 0) failures++, std::printf("FAIL the shift kernel takes none of the cases\n");
  std::printf("neighborhood: %d cases, %d of them by the shift kernel too, %d failures\n", cases, shifted, failures);
  return failures != 0;
}
