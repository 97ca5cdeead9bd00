// Matrix product: cuts the output into tasks and runs the micro-kernel of gemm.h over them.
//
// A task is a tile of rows x some column panels of one batch entry. Where one tile of rows covers the whole matrix, each task packs the
// panels of B that it needs, a piece of k at a time, so weights stream once (decode), or reads them where they lie if they serve too few
// rows to be worth that. Otherwise B is packed first, by all threads, for as much of n and of the batch as the budget allows, and every row
// tile reads it. k is cut into chunks only to bound that memory; between chunks and pieces the f32 accumulators rest in the output itself,
// in a tile of scratch or, for 16-bit outputs of very long k, in a workspace. None of this changes a bit of the result (matmul.h), so tasks
// may be cut to suit the number of threads.
#pragma once

#include <cstdlib>

#include "cpu/activation.h"
#include "cpu/gemm_amx.h"
#include "cpu/matmul.h"

namespace fovea::cpu {
namespace {

template <class T>
constexpr int64_t kRowTile = kTiled<T> ? 256 : 128;  // rows of a task, a multiple of every kGemmRows but 6
constexpr int64_t kPackedRowTile = 128;              // the same where rows of A must be packed
constexpr int64_t kPieceSteps = 1024;                // of k, one call of the micro-kernel
constexpr int64_t kLocalPieceSteps = 256;            // the same where a task packs its own panels
constexpr int64_t kNarrowPieceSteps = 32;            // the same for few rows over wide rows of B
constexpr int64_t kTaskPanels = 16, kNarrowTaskPanels = 64;
constexpr int64_t kTasksPerThread = 8;
constexpr int64_t kTaskWork = 1 << 18;      // multiply-adds worth a task of their own
constexpr int64_t kChunkSteps = 4096;       // of k, packed at once
constexpr int64_t kSharedBytes = 16 << 20;  // of packed B
constexpr int64_t kShortStride = 256;       // elements between rows of B that are not worth packing ...
constexpr int64_t kFewBlocks = 8;           // ... for so few blocks of rows
constexpr int64_t kRowPad = 16;             // steps, so that packed rows do not share cache sets
constexpr int64_t kSameSetBytes = 4096;     // rows of A that far apart fall into one cache set, too many for tiles of 32

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t batch_offset(const MatmulParams& p, const MatmulOperand& x, int64_t index) {
  int64_t offset = 0;
  for (int i = p.batch_rank - 1; i >= 0; i--) {
    offset += index % p.batch_shape[i] * x.batch[i];
    index /= p.batch_shape[i];
  }
  return offset;
}

// --- epilogue ---

struct Block {
  float* acc;
  int64_t stride;
  int rows, columns;
};

// body(row, column, lanes) for every vector of a block; lanes < kLanes at its right edge.
template <class Body>
FOVEA_INLINE void each_vector(const Block& block, Body&& body) {
  for (int i = 0; i < block.rows; i++) {
    int j = 0;
    for (; j + kLanes <= block.columns; j += kLanes) body(i, j, kLanes);
    if (j < block.columns) body(i, j, block.columns - j);
  }
}

template <class F>
FOVEA_INLINE void update(const Block& block, F&& f) {
  each_vector(block, [&](int i, int j, int n) {
    float* p = block.acc + i * block.stride + j;
    if (n == kLanes) store(p, f(load(p)));
    else store_first(p, f(load_first(p, n)), n);
  });
}

void apply_activation(Activation kind, const Block& block) {
  switch (kind) {
    case Activation::None: return;
    case Activation::Relu: return update(block, [](vf x) { return activate(Activation::Relu, x); });
    case Activation::Gelu: return update(block, [](vf x) { return activate(Activation::Gelu, x); });
    case Activation::GeluTanh: return update(block, [](vf x) { return activate(Activation::GeluTanh, x); });
    case Activation::Silu: return update(block, [](vf x) { return activate(Activation::Silu, x); });
  }
}

template <class T>
void add_bias(const Block& block, const T* bias, int64_t row, int64_t column) {
  each_vector(block, [&](int i, int j, int n) {
    float* p = block.acc + i * block.stride + j;
    const T* b = bias + i * row + j * column;
    if (n == kLanes && column <= 1) {
      store(p, load(p) + (column == 1 ? load(b) : set1(to_float(*b))));
    } else {
      for (int l = 0; l < n; l++) p[l] += to_float(b[l * column]);
    }
  });
}

template <class O>
void write_block(const Block& block, O* out, int64_t row, int64_t column) {
  each_vector(block, [&](int i, int j, int n) {
    const float* p = block.acc + i * block.stride + j;
    O* o = out + i * row + j * column;
    if (n == kLanes && column == 1) {
      store(o, load(p));
    } else {
      for (int l = 0; l < n; l++) o[l * column] = narrow<O>(p[l]);
    }
  });
}

// One batch entry's way from accumulators to the result. The block is still in the L1 cache, so each stage is a pass of its own over it,
// and a stage that is not wanted costs nothing. T: dtype of bias, O: dtype of out.
template <class T, class O>
struct Epilogue {
  const T* bias;
  O* out;
  O* pre;
  int64_t bias_row, bias_column, out_row, out_column, pre_row, pre_column;
  Activation activation;
  bool in_place;  // the accumulators are out itself

  void run(const Block& block, int64_t row, int64_t column) const {
    if (bias) add_bias(block, bias + row * bias_row + column * bias_column, bias_row, bias_column);
    if (pre) write_block(block, pre + row * pre_row + column * pre_column, pre_row, pre_column);
    apply_activation(activation, block);
    if (!in_place) write_block(block, out + row * out_row + column * out_column, out_row, out_column);
  }
};

// --- tasks ---

struct Plan {
  int64_t steps, batches;
  bool local;  // tasks pack their own panels
  bool pack_a;
  bool b_in_place;                 // whole panels of local tasks are read where they lie
  bool direct;                     // accumulators rest in out
  bool narrow;                     // few rows of a, rows of b contiguous: k outermost, so that b is read along them
  int64_t row_tile, piece, chunk;  // rows; steps
  int64_t panels_at_once, batches_at_once, panels_per_task;
};

template <class T>
Plan make_plan(const MatmulParams& p, const Panels& panels, const Lanes<T>& a, const Lanes<T>& b, int threads) {
  Plan plan;
  plan.steps = a.steps();
  plan.batches = 1;
  for (int i = 0; i < p.batch_rank; i++) plan.batches *= p.batch_shape[i];
  const bool same_set = kTiled<T> && p.m > kBlockRows<T> && a.lane_stride * static_cast<int64_t>(sizeof(T)) % kSameSetBytes == 0;
  plan.pack_a = !rows_in_place(a) || same_set;
  plan.direct = p.out_dtype == DType::F32 && p.out.column == 1;
  const int64_t work = plan.batches * most(p.m, kGemmRows) * p.n * p.k;  // fewer rows wait for B just as long
  const int64_t wanted = threads > 1 ? most(1, least(kTasksPerThread * threads, work / kTaskWork)) : 1;
  plan.row_tile = plan.pack_a ? kPackedRowTile : kRowTile<T>;
  plan.narrow = p.m <= kBlockRows<T> && b.lane_stride == 1;
  plan.b_in_place =
      std::is_same_v<T, float> && b.lane_stride == 1 && (plan.narrow || (p.m <= kFewBlocks * kBlockRows<T> && b.k_stride <= kShortStride));
  plan.local = p.m <= plan.row_tile && (p.m <= kBlockRows<T> || plan.b_in_place || plan.batches * panels.count >= wanted);
  plan.chunk = plan.local && !plan.pack_a ? plan.steps : least(plan.steps, kChunkSteps);
  plan.piece = plan.narrow ? kNarrowPieceSteps : plan.local ? kLocalPieceSteps : kPieceSteps;
  plan.panels_at_once = panels.count;
  plan.batches_at_once = plan.batches;
  if (!plan.local) {
    const int64_t panel_bytes = most(plan.chunk, 1) * kPanelLanes * 4;
    plan.panels_at_once = least(panels.count, most(1, kSharedBytes / panel_bytes));
    plan.batches_at_once = least(plan.batches, most(1, kSharedBytes / (panel_bytes * panels.count)));
  }
  auto row_tasks = [&] { return ceil_div(p.m, plan.row_tile) * plan.batches_at_once; };
  while (!plan.local && plan.row_tile > 4 * kBlockRows<T> && row_tasks() * plan.panels_at_once < wanted) plan.row_tile /= 2;
  plan.row_tile = ceil_div(plan.row_tile, kBlockRows<T>) * kBlockRows<T>;
  // Rows that lie in place cost a column task nothing; packed ones are packed again for each.
  plan.panels_per_task = most(1, plan.panels_at_once / most(1, wanted / row_tasks()));
  if (plan.narrow) plan.panels_per_task = least(plan.panels_per_task, kNarrowTaskPanels);
  else if (!plan.pack_a) plan.panels_per_task = least(plan.panels_per_task, kTaskPanels);
  return plan;
}

struct Workspace {
  float* data = nullptr;
  ~Workspace() { std::free(data); }
};

template <class T, class O>
class Product {
 public:
  Product(const MatmulParams& p, ThreadPool& pool, const std::atomic<bool>* cancel)
      : p_(p), pool_(pool), cancel_(cancel), panels_(p.n), plan_(make_plan(p, panels_, a_lanes(0), b_lanes(0), pool.threads())) {}

  void run() {
    if (!plan_.direct && plan_.chunk < plan_.steps) {
      const int64_t bytes = plan_.batches * p_.m * p_.n * 4;
      workspace_.data = static_cast<float*>(std::malloc(bytes));
      if (!workspace_.data) pool_.scratch(0, bytes);  // throws ERR_OOM
    }
    finishes_ = !plan_.direct || p_.bias.data || p_.pre.data || p_.activation != Activation::None;
    shared_bytes_ = plan_.local ? 0 : plan_.batches_at_once * plan_.panels_at_once * kPanelLanes * plan_.chunk * 4;
    base_ = static_cast<char*>(pool_.scratch(0, shared_bytes_ + local_bytes()));
    do {
      k_end_ = least(k_ + plan_.chunk, plan_.steps);
      for (batch_ = 0; batch_ < plan_.batches; batch_ += plan_.batches_at_once)
        for (panel_ = 0; panel_ < panels_.count; panel_ += plan_.panels_at_once) run_block();
      k_ = k_end_;
    } while (k_ < plan_.steps);
  }

 private:
  MatmulParams p_;
  ThreadPool& pool_;
  const std::atomic<bool>* cancel_;
  Panels panels_;
  Plan plan_;
  Workspace workspace_;  // accumulators [batches][m][n] between chunks, where needed
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
  int64_t tile_columns() const { return (plan_.narrow ? plan_.panels_per_task : 1) * kPanelLanes; }
  int64_t tile_bytes() const { return plan_.direct ? 0 : least(plan_.row_tile, p_.m + kBlockRows<T>) * tile_columns() * 4; }
  int64_t local_bytes() const { return a_bytes() + b_bytes() + tile_bytes(); }
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
          block_batches() * block_panels() * pieces, [&](int64_t i, int) { pack_shared(i, pieces); }, cancel_);
    }
    const int64_t column_tasks = ceil_div(block_panels(), plan_.panels_per_task), row_tasks = ceil_div(p_.m, plan_.row_tile);
    pool_.run(
        block_batches() * column_tasks * row_tasks,
        [&](int64_t i, int thread) {
          int64_t rest = i / row_tasks, panel = panel_ + rest % column_tasks * plan_.panels_per_task;
          int64_t end = least(panel + plan_.panels_per_task, panel_ + block_panels());
          compute(batch_ + rest / column_tasks, i % row_tasks * plan_.row_tile, panel, end, local_scratch(thread));
        },
        cancel_);
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
            p_.activation,
            plan_.direct};
  }

  // What a task works on: rows [row, row + rows) and panels [panel, end) of one batch entry.
  struct Task {
    int64_t batch, row, rows, panel, end;
    const char* a;
    int64_t a_stride;
    Lanes<T> b;
    float* packed_b;
    float* acc;  // of row `row` and the first column of panel `panel`, or of the panel at hand where each starts afresh
    int64_t acc_stride;
    Epilogue<T, O> finish;
  };

  void compute(int64_t batch, int64_t row, int64_t panel, int64_t end, char* scratch) {
    const Lanes<T> a = a_lanes(batch);
    Task task{batch, row, least(plan_.row_tile, p_.m - row), panel, end, nullptr, 0, b_lanes(batch), nullptr, nullptr, 0, epilogue(batch)};
    task.a = reinterpret_cast<const char*>(a.data + row * a.lane_stride + k_ * kStepElements<T>);
    task.a_stride = a.lane_stride * static_cast<int64_t>(sizeof(T));
    if (plan_.pack_a) {
      pack_rows(a, row, task.rows, k_, k_end_, reinterpret_cast<float*>(scratch), a_pitch());
      task.a = scratch;
      task.a_stride = a_pitch() * 4;
    }
    task.packed_b = reinterpret_cast<float*>(scratch + a_bytes());
    const int64_t column = panels_.start(panel);
    if (plan_.direct) {
      task.acc = reinterpret_cast<float*>(task.finish.out) + row * p_.out.row + column;
      task.acc_stride = p_.out.row;
    } else if (workspace_.data) {
      task.acc = workspace_.data + (batch * p_.m + row) * p_.n + column;
      task.acc_stride = p_.n;
    } else {
      task.acc = reinterpret_cast<float*>(scratch + a_bytes() + b_bytes());
      task.acc_stride = tile_columns();
    }
    if (plan_.narrow) {
      int64_t k = k_;
      do {
        for (int64_t i = panel; i < end; i++) multiply(task, i, k);
        k += plan_.piece;
      } while (k < k_end_);
    } else {
      for (int64_t i = panel; i < end; i++) {
        int64_t k = k_;
        do {
          multiply(task, i, k);
          k += plan_.piece;
        } while (k < k_end_);
      }
    }
  }

  // The task's rows times one panel, over the piece of k that begins at step k.
  void multiply(const Task& task, int64_t panel, int64_t k) {
    const int64_t column = panels_.start(panel);
    const int vectors = panels_.vectors(panel), width = panels_.width(panel);
    const bool own_tile = !plan_.direct && !workspace_.data && !plan_.narrow;
    MicroTile tile;
    tile.columns = width;
    tile.steps = least(plan_.piece, k_end_ - k);
    tile.accumulate = k > 0;
    tile.b_stride = vectors * kVectorBytes;
    if (!plan_.local) {
      tile.b = reinterpret_cast<const char*>(shared_panel(task.batch, panel) + (k - k_) * vectors * kLanes);
    } else if (plan_.b_in_place && width == vectors * kLanes) {
      tile.b = reinterpret_cast<const char*>(task.b.data + k * task.b.k_stride + column);
      tile.b_stride = task.b.k_stride * 4;
    } else {
      pack_panel(task.b, column, width, vectors, k, k + tile.steps, task.packed_b);
      tile.b = reinterpret_cast<const char*>(task.packed_b);
    }
    float* acc = task.acc + (own_tile ? 0 : column - panels_.start(task.panel));
    tile.a_stride = task.a_stride;
    tile.c_stride = task.acc_stride;
    const bool last = finishes_ && k + tile.steps == plan_.steps;
    const int64_t panel_bytes = tile.steps * vectors * kVectorBytes, share = tile.steps / kAheadSteps * kLineBytes;
    const char* next = nullptr;
    if (!plan_.local && k + tile.steps < k_end_) next = tile.b + panel_bytes;
    else if (!plan_.local) next = reinterpret_cast<const char*>(shared_panel(task.batch, panel + 1 < task.end ? panel + 1 : task.panel));
    for (int64_t r = 0; r < task.rows; r += kBlockRows<T>) {
      const int rows = static_cast<int>(least(kBlockRows<T>, task.rows - r));
      tile.a = task.a + r * task.a_stride + (k - k_) * 4;
      tile.ahead = plan_.local ? nullptr : next + least(r / kBlockRows<T> * share, panel_bytes - share);
      tile.c = acc + r * task.acc_stride;
      if constexpr (kTiled<T>) tile_kernel_for(tile, rows, vectors);
      else micro_kernel_for<kPairs<T>>(rows, vectors)(tile);
      if (last) task.finish.run({tile.c, tile.c_stride, rows, width}, task.row + r, column);
    }
  }
};

template <class T, class O = T>
void product(const MatmulParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  if (p.out_dtype == DType::F32) Product<T, float>(p, pool, cancel).run();
  else Product<T, O>(p, pool, cancel).run();
}

}  // namespace
}  // namespace fovea::cpu
