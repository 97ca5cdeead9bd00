// Reductions: rows of the reduced axes are cut into chunks of fixed length (the unit of parallel work when there are few rows), chunks
// into blocks, and blocks are given to the states of cpu/reduce_states.h as dense arrays.
//
// A block that already lies densely is read in place. When neighbouring outputs are neighbours in memory but reduced elements are not (a
// sum over rows of a matrix), a block is loaded for several outputs at once and turned in the L1 cache, so that every row of memory is
// read in whole cache lines.
#include "cpu/reduce.h"

#include <new>

#include "cpu/reduce_states.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kChunk = 64 * kBlock;
constexpr int64_t kTileElements = 32768;
constexpr int kColumns = 16;
constexpr int64_t kPitch = kBlock + 16;  // an odd number of cache lines, so that columns do not share cache sets

struct Axes {
  int rank = 0;
  int64_t shape[8], strides[8], count = 1;

  Axes(int n, const int64_t* sizes, const int64_t* steps) {
    for (int i = 0; i < n; i++) {
      count *= sizes[i];
      if (sizes[i] == 1) continue;
      const bool merge = rank > 0 && strides[rank - 1] == steps[i] * sizes[i];
      if (!merge) rank++;
      shape[rank - 1] = merge ? shape[rank - 1] * sizes[i] : sizes[i];
      strides[rank - 1] = steps[i];
    }
    if (rank == 0) rank = 1, shape[0] = count, strides[0] = 1;
  }
  int64_t inner() const { return shape[rank - 1]; }
  int64_t inner_stride() const { return strides[rank - 1]; }
  // Where element `i` in row-major order lies.
  int64_t offset(int64_t i) const {
    int64_t at = 0;
    for (int a = rank - 1; a >= 0; a--) {
      at += i % shape[a] * strides[a];
      i /= shape[a];
    }
    return at;
  }
};

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::F32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::F64;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::I64;
};

// Room for any of the states, and what can be done with one over elements T: the walk over the input is the same for all.
struct AnyState {
  alignas(8) char bytes[24];
};

template <class T>
struct StateKind {
  void (*begin)(AnyState&);
  void (*block)(AnyState&, const T* x, int64_t n, int64_t first);
  void (*merge)(AnyState&, const AnyState& next);
  void (*finish)(const AnyState&, const ReduceParams&, int64_t count, char* to);
};

// Stores a result, which is a double or an integer, in the output's dtype.
template <class R>
void store_result(const ReduceParams& p, R value, char* to) {
  if constexpr (!__is_same(R, double)) {
    const int64_t integer = static_cast<int64_t>(value);
    if (p.out_dtype == DType::Bool) *to = static_cast<char>(integer != 0);
    else store_block(p.out_dtype, &integer, to, 1);
  } else if (p.out_dtype == DType::F64) {
    memcpy(to, &value, 8);
  } else {
    const float rounded = static_cast<float>(value);
    store_block(p.out_dtype, &rounded, to, 1);
  }
}

template <class T, class State>
StateKind<T> kind_of() {
  static_assert(sizeof(State) <= sizeof(AnyState) && alignof(State) <= alignof(AnyState) && __is_trivially_copyable(State));
  return {[](AnyState& s) { new (s.bytes) State; },
          [](AnyState& s, const T* x, int64_t n, int64_t first) { reinterpret_cast<State*>(s.bytes)->block(x, n, first); },
          [](AnyState& s, const AnyState& next) { reinterpret_cast<State*>(s.bytes)->merge(*reinterpret_cast<const State*>(next.bytes)); },
          [](const AnyState& s, const ReduceParams& p, int64_t count, char* to) {
            store_result(p, reinterpret_cast<const State*>(s.bytes)->finish(p, count), to);
          }};
}

template <class T>
class Reduction {
 public:
  Reduction(const ReduceParams& p, const StateKind<T>& kind)
      : p_(p),
        kind_(kind),
        kept_(p.kept_rank, p.kept_shape, p.kept_strides),
        reduced_(p.reduced_rank, p.reduced_shape, p.reduced_strides),
        dense_(p.in_dtype == DTypeOf<T>::value && reduced_.rank == 1 && reduced_.inner_stride() == 1),
        columns_(kept_.inner_stride() == 1 && reduced_.inner_stride() != 1 && kept_.inner() > 1),
        chunks_((reduced_.count + kChunk - 1) / kChunk),
        groups_per_row_(columns_ ? (kept_.inner() + kColumns - 1) / kColumns : kept_.inner()),
        groups_(kept_.count / kept_.inner() * groups_per_row_) {}

  void run(ThreadPool& pool) const {
    if (chunks_ <= 1) {
      const int64_t cost = (reduced_.count + 8) * (columns_ ? kColumns : 1);
      const int64_t per_tile = cost < kTileElements ? kTileElements / cost : 1;
      const int64_t tiles = (groups_ + per_tile - 1) / per_tile;
      auto body = [&](int64_t tile, int) {
        const int64_t end = (tile + 1) * per_tile < groups_ ? (tile + 1) * per_tile : groups_;
        for (int64_t g = tile * per_tile; g < end; g++) {
          AnyState states[kColumns];
          const int width = accumulate(g, 0, states);
          for (int c = 0; c < width; c++) finish(first_output(g) + c, states[c]);
        }
      };
      if (tiles == 1) body(0, 0);
      else pool.run(tiles, body);
      return;
    }
    AnyState* states = static_cast<AnyState*>(pool.scratch(0, static_cast<size_t>(kept_.count * chunks_) * sizeof(AnyState)));
    pool.run(groups_ * chunks_, [&](int64_t tile, int) {
      const int64_t group = tile / chunks_, chunk = tile % chunks_;
      AnyState local[kColumns];
      const int width = accumulate(group, chunk, local);
      for (int c = 0; c < width; c++) states[(first_output(group) + c) * chunks_ + chunk] = local[c];
    });
    for (int64_t o = 0; o < kept_.count; o++) {
      AnyState total = states[o * chunks_];
      for (int64_t chunk = 1; chunk < chunks_; chunk++) kind_.merge(total, states[o * chunks_ + chunk]);
      finish(o, total);
    }
  }

 private:
  // A group is one output, or up to kColumns neighbours.
  int64_t first_output(int64_t group) const {
    return columns_ ? group / groups_per_row_ * kept_.inner() + group % groups_per_row_ * kColumns : group;
  }

  const char* at(int64_t offset) const { return static_cast<const char*>(p_.in) + offset * static_cast<int64_t>(size_of(p_.in_dtype)); }

  int accumulate(int64_t group, int64_t chunk, AnyState* states) const {
    const int64_t first = first_output(group), base = kept_.offset(first);
    const int64_t begin = chunk * kChunk, end = begin + kChunk < reduced_.count ? begin + kChunk : reduced_.count;
    if (!columns_) {
      kind_.begin(states[0]);
      alignas(64) T scratch[kBlock];
      for (int64_t i = begin; i < end; i += kBlock) {
        const int64_t n = end - i < kBlock ? end - i : kBlock;
        if (dense_) {
          kind_.block(states[0], reinterpret_cast<const T*>(at(base + i)), n, i);
        } else {
          gather(base, i, n, scratch);
          kind_.block(states[0], scratch, n, i);
        }
      }
      return 1;
    }
    const int64_t left = kept_.inner() - first % kept_.inner();
    const int width = static_cast<int>(left < kColumns ? left : kColumns);
    for (int c = 0; c < width; c++) kind_.begin(states[c]);
    alignas(64) T scratch[kColumns * kPitch];
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = end - i < kBlock ? end - i : kBlock;
      if (add_columns(base, i, n, width, states)) continue;
      gather_columns(base, i, n, width, scratch);
      for (int c = 0; c < width; c++) kind_.block(states[c], scratch + c * kPitch, n, i);
    }
    return width;
  }

  // Elements [first, first + n) of the reduced axes, for the output at `base`.
  void gather(int64_t base, int64_t first, int64_t n, T* dst) const {
    while (n > 0) {
      int64_t run = reduced_.inner() - first % reduced_.inner();
      if (run > n) run = n;
      load_block(p_.in_dtype, at(base + reduced_.offset(first)), reduced_.inner_stride(), dst, run);
      dst += run;
      first += run;
      n -= run;
    }
  }

  void gather_columns(int64_t base, int64_t first, int64_t n, int width, T* dst) const {
    T row[kColumns];
    for (int64_t done = 0; done < n;) {
      int64_t run = reduced_.inner() - (first + done) % reduced_.inner();
      if (run > n - done) run = n - done;
      const int64_t start = base + reduced_.offset(first + done);
      for (int64_t r = 0; r < run; r++) {
        load_block(p_.in_dtype, at(start + r * reduced_.inner_stride()), 1, row, width);
        for (int c = 0; c < width; c++) dst[c * kPitch + done + r] = row[c];
      }
      done += run;
    }
  }

  // The same sums as those of the turned block, bit for bit, without turning it; false where that does not apply.
  bool add_columns(int64_t base, int64_t first, int64_t n, int width, AnyState* states) const {
    if constexpr (__is_same(T, float)) {
      const bool sums = p_.op == static_cast<int>(ReduceOp::Sum) || p_.op == static_cast<int>(ReduceOp::Mean);
      if (!sums || width < kColumns || reduced_.rank > 1) return false;
      const char* start = at(base + first * reduced_.inner_stride());
      if (p_.in_dtype == DType::F32) add_columns_of(reinterpret_cast<const float*>(start), n, states);
      else if (p_.in_dtype == DType::BF16) add_columns_of(reinterpret_cast<const bf16*>(start), n, states);
      else add_columns_of(reinterpret_cast<const f16*>(start), n, states);
      return true;
    }
    return false;
  }

  template <class S>
  void add_columns_of(const S* src, int64_t n, AnyState* states) const {
    constexpr int kSlots = kGroups * kLanes, kRegisters = kColumns / kLanes;
    const int64_t stride = reduced_.inner_stride();
    alignas(64) float slots[kSlots][kColumns] = {};
    for (int64_t r = 0; r < n; r++) {
      float* slot = slots[r % kSlots];
      FOVEA_UNROLL
      for (int v = 0; v < kRegisters; v++) store(slot + v * kLanes, load(slot + v * kLanes) + load(src + r * stride + v * kLanes));
    }
    for (int l = 0; l < kLanes; l++)
      for (int c = 0; c < kColumns; c++)
        slots[l][c] = (slots[l][c] + slots[kLanes + l][c]) + (slots[2 * kLanes + l][c] + slots[3 * kLanes + l][c]);
    for (int half = kLanes / 2; half > 0; half /= 2)
      for (int l = 0; l < half; l++)
        for (int c = 0; c < kColumns; c++) slots[l][c] += slots[l + half][c];
    for (int c = 0; c < kColumns; c++) reinterpret_cast<SumState<float>*>(states[c].bytes)->total += static_cast<double>(slots[0][c]);
  }

  void finish(int64_t output, const AnyState& state) const {
    kind_.finish(state, p_, reduced_.count, static_cast<char*>(p_.out) + output * static_cast<int64_t>(size_of(p_.out_dtype)));
  }

  const ReduceParams& p_;
  const StateKind<T> kind_;
  Axes kept_, reduced_;
  bool dense_, columns_;
  int64_t chunks_, groups_per_row_, groups_;
};

template <class T>
StateKind<T> kind_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::Sum: return kind_of<T, SumState<T>>();
    case ReduceOp::Prod: return kind_of<T, ProdState<T>>();
    case ReduceOp::Max: return kind_of<T, ExtremeState<T, Greater, true>>();
    case ReduceOp::Min: return kind_of<T, ExtremeState<T, Less, false>>();
    case ReduceOp::ArgMax: return kind_of<T, ArgState<T, Greater, true>>();
    case ReduceOp::ArgMin: return kind_of<T, ArgState<T, Less, false>>();
    case ReduceOp::Any: return kind_of<T, TruthState<T, false>>();
    case ReduceOp::All: return kind_of<T, TruthState<T, true>>();
    default:
      if constexpr (!kIsInteger<T>) {
        if (op == ReduceOp::Mean) return kind_of<T, MeanState<T>>();
        if (op == ReduceOp::Var) return kind_of<T, VarState<T>>();
        if (op == ReduceOp::Norm) return kind_of<T, NormState<T>>();
        return kind_of<T, LogSumExpState<T>>();
      } else {
        __builtin_unreachable();  // integers have no mean and what builds on it
      }
  }
}

template <class T>
void reduce_as(const ReduceParams& p, ThreadPool& pool) {
  Reduction<T>(p, kind_of<T>(static_cast<ReduceOp>(p.op))).run(pool);
}

}  // namespace

template <>
void reduce<kIsa>(const ReduceParams& p, ThreadPool& pool) {
  if (p.compute == DType::F32) return reduce_as<float>(p, pool);
  if (p.compute == DType::F64) return reduce_as<double>(p, pool);
  reduce_as<int64_t>(p, pool);
}

}  // namespace fovea::cpu
