// Matrix product: cuts the output into tasks and runs the micro-kernel of gemm.h over them.
//
// A task is a tile of rows x some column panels of one batch entry. Where one tile of rows covers the whole matrix, each task packs the
// panels of B that it needs, a piece of k at a time, so weights stream once (decode). Otherwise B is packed first, by all threads, for as
// much of n and of the batch as the budget allows, and every row tile reads it. k is cut into chunks only to bound that memory; between
// chunks and pieces the f32 accumulators rest in the output itself, in a tile of scratch or, for 16-bit outputs of very long k, in a
// workspace. None of this changes a bit of the result (matmul.h), so tasks may be cut to suit the number of threads.
#include "cpu/matmul.h"

#include <cstdlib>

#include "cpu/activation.h"
#include "cpu/gemm.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kRowTile = 256;           // rows of a task, a multiple of every kGemmRows but 6
constexpr int64_t kPackedRowTile = 128;     // the same where rows of A must be packed
constexpr int64_t kPieceSteps = 1024;       // of k, one call of the micro-kernel
constexpr int64_t kLocalPieceSteps = 256;   // the same where a task packs its own panels
constexpr int64_t kChunkSteps = 4096;       // of k, packed at once
constexpr int64_t kSharedBytes = 16 << 20;  // of packed B
constexpr int64_t kRowPad = 16;             // steps, so that packed rows do not share cache sets

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// --- the problem in its most convenient form, with the same result ---

void transpose_operand(MatmulOperand& x) {
  int64_t row = x.row;
  x.row = x.column;
  x.column = row;
}

// out^T = b^T a^T, where the output has contiguous columns or is too narrow to fill vectors.
void prefer_wide_rows(MatmulParams& p) {
  const bool turned = p.out.column != 1 && p.out.row == 1 && p.m > 1;
  const bool narrow = p.n < kLanes && p.m > p.n;
  if (!turned && !narrow) return;
  MatmulOperand a = p.a;
  int64_t m = p.m;
  p.a = p.b, p.b = a, p.m = p.n, p.n = m;
  for (MatmulOperand* x : {&p.a, &p.b, &p.out, &p.bias, &p.pre}) transpose_operand(*x);
}

// Batch axes that only continue the rows of a, out and pre become rows.
void fold_batch(MatmulParams& p) {
  int rank = 0;
  for (int i = 0; i < p.batch_rank; i++) {
    if (p.batch_shape[i] == 1) continue;
    p.batch_shape[rank] = p.batch_shape[i];
    for (MatmulOperand* x : {&p.a, &p.b, &p.out, &p.bias, &p.pre}) x->batch[rank] = x->batch[i];
    rank++;
  }
  auto continues = [&](const MatmulOperand& x) { return !x.data || x.batch[rank - 1] == x.row * p.m; };
  while (rank > 0 && p.b.batch[rank - 1] == 0 && continues(p.a) && continues(p.out) && continues(p.bias) && continues(p.pre))
    p.m *= p.batch_shape[--rank];
  p.batch_rank = rank;
}

int64_t batch_offset(const MatmulParams& p, const MatmulOperand& x, int64_t index) {
  int64_t offset = 0;
  for (int i = p.batch_rank - 1; i >= 0; i--) {
    offset += index % p.batch_shape[i] * x.batch[i];
    index /= p.batch_shape[i];
  }
  return offset;
}

// --- epilogue ---

template <class T>
FOVEA_INLINE vf load_strided(const T* p, int64_t stride, int n) {
  if (n == kLanes && stride == 1) return load(p);
  if (stride == 0) return set1(to_float(*p));
  vf r{};
  for (int i = 0; i < n; i++) r[i] = to_float(p[i * stride]);
  return r;
}

template <class T>
FOVEA_INLINE void store_strided(T* p, int64_t stride, vf v, int n) {
  if (n == kLanes && stride == 1) return store(p, v);
  for (int i = 0; i < n; i++) p[i * stride] = narrow<T>(v[i]);
}

// Of one batch entry: rows x columns of accumulators to their final value and place. T: dtype of bias, O: dtype of out.
template <class T, class O>
struct Epilogue {
  const T* bias;
  O* out;
  O* pre;
  int64_t bias_row, bias_column, out_row, out_column, pre_row, pre_column;
  Activation activation;

  void run(const float* acc, int64_t acc_stride, int rows, int columns, int64_t row, int64_t column) const {
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j += kLanes) {
        const int n = columns - j < kLanes ? columns - j : kLanes;
        const int64_t r = row + i, c = column + j;
        vf v = n == kLanes ? load(acc + i * acc_stride + j) : load_first(acc + i * acc_stride + j, n);
        if (bias) v += load_strided(bias + r * bias_row + c * bias_column, bias_column, n);
        if (pre) store_strided(pre + r * pre_row + c * pre_column, pre_column, v, n);
        store_strided(out + r * out_row + c * out_column, out_column, activate(activation, v), n);
      }
  }
};

// --- tasks ---

struct Plan {
  int64_t steps, batches;
  bool local;  // tasks pack their own panels
  bool pack_a;
  bool direct;                     // accumulators rest in out
  int64_t row_tile, piece, chunk;  // rows; steps
  int64_t panels_at_once, batches_at_once, panels_per_task;
  float* workspace = nullptr;  // [batches][m][n], or null
};

template <class T>
Plan make_plan(const MatmulParams& p, const Panels& panels, bool rows_usable, int threads) {
  Plan plan;
  plan.steps = ceil_div(p.k, kStepElements<T>);
  plan.batches = 1;
  for (int i = 0; i < p.batch_rank; i++) plan.batches *= p.batch_shape[i];
  plan.pack_a = !rows_usable;
  plan.direct = p.out_dtype == DType::F32 && p.out.column == 1;
  const int64_t wanted = threads > 1 ? 8 * threads : 1;
  plan.row_tile = plan.pack_a ? kPackedRowTile : kRowTile;
  plan.local = p.m <= plan.row_tile && (p.m <= kGemmRows || plan.batches * panels.count >= wanted);
  plan.chunk = plan.local ? plan.steps : least(plan.steps, kChunkSteps);
  if (plan.local && plan.pack_a) plan.chunk = least(plan.steps, kChunkSteps);
  plan.piece = plan.local ? kLocalPieceSteps : kPieceSteps;
  if (plan.local) plan.chunk = least(plan.chunk, plan.steps);
  const int64_t panel_bytes = most(plan.chunk, 1) * kPanelLanes * 4;
  plan.panels_at_once = plan.local ? panels.count : least(panels.count, most(1, kSharedBytes / panel_bytes));
  plan.batches_at_once = plan.local ? plan.batches : least(plan.batches, most(1, kSharedBytes / (panel_bytes * panels.count)));
  auto row_tiles = [&] { return ceil_div(p.m, plan.row_tile) * plan.batches_at_once; };
  while (plan.row_tile > 4 * kGemmRows && row_tiles() * plan.panels_at_once < wanted) plan.row_tile /= 2;
  plan.row_tile = ceil_div(plan.row_tile, kGemmRows) * kGemmRows;
  const int64_t column_tasks = most(1, wanted / row_tiles());
  plan.panels_per_task = most(1, plan.panels_at_once / column_tasks);
  if (!plan.pack_a) plan.panels_per_task = least(plan.panels_per_task, 16);
  return plan;
}

template <class T, class O>
class Product {
 public:
  Product(const MatmulParams& p, ThreadPool& pool)
      : p_(p), pool_(pool), panels_(p.n), plan_(make_plan<T>(p, panels_, rows_in_place(a_lanes(0)), pool.threads())) {}

  void run() {
    const bool needs_workspace = !plan_.direct && plan_.chunk < plan_.steps;
    if (needs_workspace) plan_.workspace = static_cast<float*>(std::malloc(plan_.batches * p_.m * p_.n * 4));
    finishes_ = !plan_.direct || p_.bias.data || p_.pre.data || p_.activation != Activation::None;
    shared_bytes_ = plan_.local ? 0 : plan_.batches_at_once * plan_.panels_at_once * kPanelLanes * plan_.chunk * 4;
    base_ = static_cast<char*>(pool_.scratch(0, shared_bytes_ + local_bytes()));
    try {
      for (k_ = 0; k_ == 0 || k_ < plan_.steps; k_ += plan_.chunk) {
        k_end_ = least(k_ + plan_.chunk, plan_.steps);
        for (batch_ = 0; batch_ < plan_.batches; batch_ += plan_.batches_at_once)
          for (panel_ = 0; panel_ < panels_.count; panel_ += plan_.panels_at_once) run_block();
        if (plan_.steps == 0) break;
      }
    } catch (...) {
      std::free(plan_.workspace);
      throw;
    }
    std::free(plan_.workspace);
  }

 private:
  MatmulParams p_;
  ThreadPool& pool_;
  Panels panels_;
  Plan plan_;
  bool finishes_ = false;
  int64_t shared_bytes_ = 0;
  char* base_ = nullptr;
  int64_t k_ = 0, k_end_ = 0, batch_ = 0, panel_ = 0;  // of the current block

  Lanes<T> a_lanes(int64_t batch) const {
    return {static_cast<const T*>(p_.a.data) + batch_offset(p_, p_.a, batch), p_.a.row, p_.a.column, p_.k};
  }
  Lanes<T> b_lanes(int64_t batch) const {
    return {static_cast<const T*>(p_.b.data) + batch_offset(p_, p_.b, batch), p_.b.column, p_.b.row, p_.k};
  }
  int64_t a_pitch() const { return plan_.chunk + kRowPad; }
  int64_t a_bytes() const { return plan_.pack_a ? plan_.row_tile * a_pitch() * 4 : 0; }
  int64_t b_bytes() const { return plan_.local ? plan_.piece * kPanelLanes * 4 : 0; }
  int64_t local_bytes() const { return a_bytes() + b_bytes() + (plan_.direct ? 0 : plan_.row_tile * kPanelLanes * 4); }
  char* local_scratch(int thread) { return thread == 0 ? base_ + shared_bytes_ : static_cast<char*>(pool_.scratch(thread, local_bytes())); }

  int64_t block_panels() const { return least(plan_.panels_at_once, panels_.count - panel_); }
  int64_t block_batches() const { return least(plan_.batches_at_once, plan_.batches - batch_); }
  float* shared_panel(int64_t batch, int64_t panel) {
    int64_t columns = panels_.start(panel) - panels_.start(panel_);
    return reinterpret_cast<float*>(base_) + ((batch - batch_) * plan_.panels_at_once * kPanelLanes + columns) * plan_.chunk;
  }

  void run_block() {
    if (!plan_.local) {
      const int64_t pieces = ceil_div(k_end_ - k_, kLocalPieceSteps);
      pool_.run(
          block_batches() * block_panels() * pieces, [&](int64_t i, int) { pack_shared(i, pieces); }, p_.cancel);
    }
    const int64_t column_tasks = ceil_div(block_panels(), plan_.panels_per_task), row_tasks = ceil_div(p_.m, plan_.row_tile);
    pool_.run(
        block_batches() * column_tasks * row_tasks,
        [&](int64_t i, int thread) {
          int64_t rest = i / row_tasks, panel = panel_ + rest % column_tasks * plan_.panels_per_task;
          int64_t end = least(panel + plan_.panels_per_task, panel_ + block_panels());
          compute(batch_ + rest / column_tasks, i % row_tasks * plan_.row_tile, panel, end, local_scratch(thread));
        },
        p_.cancel);
  }

  void pack_shared(int64_t i, int64_t pieces) {
    const int64_t begin = k_ + i % pieces * kLocalPieceSteps, end = least(begin + kLocalPieceSteps, k_end_);
    const int64_t panel = panel_ + i / pieces % block_panels(), batch = batch_ + i / pieces / block_panels();
    const int vectors = panels_.vectors(panel);
    float* dst = shared_panel(batch, panel) + (begin - k_) * vectors * kLanes;
    pack_panel(b_lanes(batch), panels_.start(panel), panels_.width(panel), vectors, begin, end, dst);
  }

  Epilogue<T, O> epilogue(int64_t batch) const {
    return {p_.bias.data ? static_cast<const T*>(p_.bias.data) + batch_offset(p_, p_.bias, batch) : nullptr,
            static_cast<O*>(p_.out.data) + batch_offset(p_, p_.out, batch),
            p_.pre.data ? static_cast<O*>(p_.pre.data) + batch_offset(p_, p_.pre, batch) : nullptr,
            p_.bias.row,
            p_.bias.column,
            p_.out.row,
            p_.out.column,
            p_.pre.row,
            p_.pre.column,
            p_.activation};
  }

  // Rows [row, row + row_tile) of panels [panel, end) of one batch entry, over the current chunk of k.
  void compute(int64_t batch, int64_t row, int64_t panel, int64_t end, char* scratch) {
    const int64_t rows = least(plan_.row_tile, p_.m - row);
    const Lanes<T> a = a_lanes(batch), b = b_lanes(batch);
    const Epilogue<T, O> finish = epilogue(batch);
    const char* a_rows = reinterpret_cast<const char*>(a.data + row * a.lane_stride + k_ * kStepElements<T>);
    int64_t a_stride = a.lane_stride * static_cast<int64_t>(sizeof(T));
    if (plan_.pack_a) {
      float* packed = reinterpret_cast<float*>(scratch);
      pack_rows(a, row, rows, k_, k_end_, packed, a_pitch());
      a_rows = scratch;
      a_stride = a_pitch() * 4;
    }
    float* own_panel = reinterpret_cast<float*>(scratch + a_bytes());
    float* own_tile = reinterpret_cast<float*>(scratch + a_bytes() + b_bytes());
    for (; panel < end; panel++) {
      const int64_t column = panels_.start(panel);
      const int vectors = panels_.vectors(panel), width = panels_.width(panel);
      MicroTile tile;
      tile.columns = width;
      float* c = own_tile;
      tile.c_stride = kPanelLanes;
      if (plan_.direct) c = reinterpret_cast<float*>(finish.out) + row * p_.out.row + column, tile.c_stride = p_.out.row;
      else if (plan_.workspace) c = plan_.workspace + (batch * p_.m + row) * p_.n + column, tile.c_stride = p_.n;
      tile.a_stride = a_stride;
      for (int64_t k = k_; k == k_ || k < k_end_; k += plan_.piece) {
        tile.steps = least(plan_.piece, k_end_ - k);
        tile.accumulate = k > 0;
        if (plan_.local) pack_panel(b, column, width, vectors, k, k + tile.steps, own_panel);
        tile.b = reinterpret_cast<const char*>(plan_.local ? own_panel : shared_panel(batch, panel) + (k - k_) * vectors * kLanes);
        const bool last = k + tile.steps == plan_.steps;
        for (int64_t r = 0; r < rows; r += kGemmRows) {
          const int count = static_cast<int>(least(kGemmRows, rows - r));
          tile.a = a_rows + r * a_stride + (k - k_) * 4;
          tile.c = c + r * tile.c_stride;
          micro_kernel_for<kPairs<T>>(count, vectors)(tile);
          if (last && finishes_) finish.run(tile.c, tile.c_stride, count, width, row + r, column);
        }
      }
    }
  }
};

// --- f64 ---

constexpr int64_t kDoubleRows = 8, kDoubleColumns = 32;

void product_f64(const MatmulParams& p, ThreadPool& pool) {
  int64_t batches = 1;
  for (int i = 0; i < p.batch_rank; i++) batches *= p.batch_shape[i];
  const int64_t row_tiles = ceil_div(p.m, kDoubleRows), column_tiles = ceil_div(p.n, kDoubleColumns);
  pool.run(
      batches * row_tiles * column_tiles,
      [&](int64_t task, int) {
        const int64_t j0 = task % column_tiles * kDoubleColumns, i0 = task / column_tiles % row_tiles * kDoubleRows;
        const int64_t batch = task / column_tiles / row_tiles;
        const double* a = static_cast<const double*>(p.a.data) + batch_offset(p, p.a, batch);
        const double* b = static_cast<const double*>(p.b.data) + batch_offset(p, p.b, batch);
        double* out = static_cast<double*>(p.out.data) + batch_offset(p, p.out, batch);
        const double* bias = p.bias.data ? static_cast<const double*>(p.bias.data) + batch_offset(p, p.bias, batch) : nullptr;
        double* pre = p.pre.data ? static_cast<double*>(p.pre.data) + batch_offset(p, p.pre, batch) : nullptr;
        const int64_t rows = least(kDoubleRows, p.m - i0), columns = least(kDoubleColumns, p.n - j0);
        double acc[kDoubleRows][kDoubleColumns] = {};
        for (int64_t k = 0; k < p.k; k++) {
          double line[kDoubleColumns];
          for (int64_t j = 0; j < columns; j++) line[j] = b[k * p.b.row + (j0 + j) * p.b.column];
          for (int64_t i = 0; i < rows; i++) {
            const double x = a[(i0 + i) * p.a.row + k * p.a.column];
            for (int64_t j = 0; j < columns; j++) acc[i][j] += x * line[j];
          }
        }
        for (int64_t i = i0; i < i0 + rows; i++)
          for (int64_t j = j0; j < j0 + columns; j++) {
            double x = acc[i - i0][j - j0];
            if (bias) x += bias[i * p.bias.row + j * p.bias.column];
            if (pre) pre[i * p.pre.row + j * p.pre.column] = x;
            out[i * p.out.row + j * p.out.column] = activate(p.activation, x);
          }
      },
      p.cancel);
}

template <class T>
void product(const MatmulParams& p, ThreadPool& pool) {
  if (p.out_dtype == DType::F32) Product<T, float>(p, pool).run();
  else Product<T, T>(p, pool).run();
}

}  // namespace

template <>
void matmul<kIsa>(const MatmulParams& params, ThreadPool& pool) {
  MatmulParams p = params;
  if (p.m == 0 || p.n == 0) return;
  for (int i = 0; i < p.batch_rank; i++)
    if (p.batch_shape[i] == 0) return;
  if (p.dtype == DType::F64) return product_f64(p, pool);
  fold_batch(p);
  prefer_wide_rows(p);
  if (p.dtype == DType::F32) product<float>(p, pool);
  else if (p.dtype == DType::BF16) product<bf16>(p, pool);
  else product<f16>(p, pool);
}

}  // namespace fovea::cpu
