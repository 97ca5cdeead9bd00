// Gradients of attention on a card against plain double-precision loops: small calls for each kernel of every dtype and head dim, then a
// table of configurations, in f32 and in bf16. Errors are relative to the largest gradient, which may be small without meaning (a softmax
// over one key has none), so they have a floor.
//   attention_backward [--cases=N of the table]
#include "cuda/attention_backward.h"

#include "../native/attention_backward_problem.h"
#include "gpu.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

constexpr double kFloor = 1e-3;

double error_of(const std::vector<float>& got, const std::vector<double>& want, double floor = kFloor) {
  double high = floor, worst = 0;
  for (double x : want) high = std::max(high, std::fabs(x));
  for (size_t i = 0; i < want.size(); i++) worst = std::max(worst, std::isfinite(got[i]) ? std::fabs(got[i] - want[i]) / high : INFINITY);
  return worst;
}

struct Gradients {
  std::vector<float> dq, dk, dv, dbias, dslopes;
  bool operator==(const Gradients&) const = default;
};

class DeviceProblem {
 public:
  DeviceProblem(Gpu& gpu, const Problem& t) : gpu_(gpu), t_(t), arrays_(gpu), p_(t.p), g_(t.g) {
    const Case& c = t.c;
    p_.q.data = operand(t.q), p_.k.data = operand(t.k), p_.v.data = operand(t.v), p_.out.data = operand(t.out);
    p_.lse = arrays_.copy(t.lse);
    g_.dout.data = operand(t.dout), g_.dlse = arrays_.copy(t.dlse);
    p_.kv_lengths = arrays_.copy(t.lengths), p_.q_rows = arrays_.copy(t.q_rows), p_.kv_rows = arrays_.copy(t.kv_rows);
    p_.cu_q = p_.cu_kv = arrays_.copy(c.cu);
    if (c.bias) p_.bias.data = arrays_.copy(t.bias.wide);
    if (c.batch == 1) p_.bias.sb = 0;  // one for all packed sequences too, as csrc/ops has it
    p_.mask.data = arrays_.copy(t.mask);
    if (c.block_q) {
      list_by_columns();
      block_ = t.block;
      block_.row_begin = arrays_.copy(t.row_begin), block_.columns = arrays_.copy(t.columns);
      block_.tiles = arrays_.copy(t.tiles), block_.bits = arrays_.copy(t.tile_bits);
      block_.column_begin = arrays_.copy(column_begin_), block_.rows = arrays_.copy(rows_), block_.row_tiles = arrays_.copy(row_tiles_);
      p_.block_mask = &block_;
    }
    if (c.alibi) {
      table_ = t.table, table_.data = arrays_.copy(t.slopes);
      score_ = t.score, derivative_ = t.derivative;
      score_.tables = derivative_.tables = &table_;
      p_.score = &score_, g_.derivative = &derivative_;
    }
    limits_ = {static_cast<int32_t>(t.physical_q()), static_cast<int32_t>(t.physical_kv()), INT32_MAX, INT32_MAX};
    if (c.bias || c.mask || c.block_q)
      limits_.sequence_q = static_cast<int32_t>(c.len_q), limits_.sequence_kv = static_cast<int32_t>(c.len_kv);
    g_.dtype = DType::F32;
    g_.dq = p_.q, g_.dk = p_.k, g_.dv = p_.v;
  }

  const char* refusal() const { return cuda::attention_backward_refusal(p_, g_); }

  Gradients run() {
    // NaN where the kernel has to write; with a list of queries it writes the listed rows alone, and it adds to the last two.
    const float start = t_.c.rows ? 0.f : NAN;
    Gradients r{std::vector<float>(t_.dq.size(), start), std::vector<float>(t_.dk.size(), NAN), std::vector<float>(t_.dv.size(), NAN),
                std::vector<float>(t_.dbias.size()), std::vector<float>(t_.slopes.size())};
    const DeviceArray dq = array(r.dq), dk = array(r.dk), dv = array(r.dv), dbias = array(r.dbias), dslopes = array(r.dslopes);
    float* table = dslopes.data<float>();
    g_.dq.data = dq.data(), g_.dk.data = dk.data(), g_.dv.data = dv.data();
    if (t_.c.bias) g_.dbias = p_.bias, g_.dbias.data = dbias.data();
    if (t_.c.alibi) g_.dtables = &table;
    gpu_.run([&](cuda::Stream& stream) { cuda::attention_backward(p_, limits_, g_, stream); });
    dq.download(r.dq.data()), dk.download(r.dk.data()), dv.download(r.dv.data());
    dbias.download(r.dbias.data()), dslopes.download(r.dslopes.data());
    return r;
  }

 private:
  DeviceArray array(const std::vector<float>& host) { return DeviceArray(gpu_, host.data(), host.size() * sizeof(float)); }
  void* operand(const Operand& x) { return t_.c.dtype == DType::F32 ? static_cast<void*>(arrays_.copy(x.wide)) : arrays_.copy(x.narrow); }

  // The block mask's entries by key block, as BlockMaskView wants them.
  void list_by_columns() {
    column_begin_ = {0};
    for (int32_t column = 0; column < t_.block.kv_blocks; column++) {
      for (int32_t row = 0; row < t_.block.q_blocks; row++)
        for (int32_t e = t_.row_begin[row]; e < t_.row_begin[row + 1]; e++)
          if (t_.columns[e] == column) rows_.push_back(row), row_tiles_.push_back(t_.tiles[e]);
      column_begin_.push_back(static_cast<int32_t>(rows_.size()));
    }
  }

  Gpu& gpu_;
  const Problem& t_;
  DeviceArrays arrays_;
  AttentionParams p_;
  AttentionGrads g_;
  BlockMaskView block_{};
  MaskTable table_{};
  MaskProgram score_{}, derivative_{};
  std::vector<int32_t> column_begin_, rows_, row_tiles_;
  cuda::AttentionLimits limits_{};
};

void check_case(Gpu& gpu, const Case& c, uint32_t seed, Report& report) {
  Problem t;
  t.c = c;
  make_params(t, seed);
  reference(t);
  DeviceProblem problem(gpu, t);
  const std::string name = name_of(c.dtype);
  if (const char* reason = problem.refusal()) return report.refused(name, reason);
  const Gradients r = problem.run(), again = problem.run();
  report.add(name + " dq", error_of(r.dq, t.dq), tolerance_of(c.dtype), c.name);
  report.add(name + " dk", error_of(r.dk, t.dk), tolerance_of(c.dtype), c.name);
  report.add(name + " dv", error_of(r.dv, t.dv), tolerance_of(c.dtype), c.name);
  if (c.bias) report.add(name + " dbias", error_of(r.dbias, t.dbias), tolerance_of(c.dtype), c.name);
  // Terms that cancel: the error is held against the sum of what is added up.
  if (c.alibi) report.add(name + " dslopes", error_of(r.dslopes, t.dslopes, t.slope_terms), tolerance_of(c.dtype), c.name);
  report.add(name + " twice", r == again ? 0 : INFINITY, 0, c.name);
}

// Calls that a dtype and a head dim take to kernels of their own: without and with what only the general ones do; with lists of keys.
std::vector<Case> kernel_cases(DType dtype, int64_t dim) {
  Case plain{.name = "kernel", .heads_q = 2, .len_q = 20, .len_kv = 33, .dim = dim, .dim_v = dim, .dtype = dtype};
  Case general = plain, listed = plain;
  general.bias = general.alibi = general.mask = true, general.bias_h = false;  // a bias that heads share is summed in parts
  listed.rows = true;
  if (dim == 32) return {plain, general, listed};
  return {plain, general};
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("attention_backward");
    auto left = static_cast<int>(argument(argc, argv, "cases", 1000));
    uint32_t seed = 1;
    for (DType dtype : {DType::F32, DType::BF16, DType::F16})
      for (int64_t dim : {32, 64, 128, 256})
        for (const Case& c : kernel_cases(dtype, dim)) check_case(gpu, c, seed++, report);
    for (Case c : backward_cases()) {
      if (left-- <= 0) break;
      for (DType dtype : {DType::F32, DType::BF16}) {
        c.dtype = dtype;
        check_case(gpu, c, seed++, report);
      }
    }
    return report.finish();
  });
}
