// One attention call bound from tensors: what the forward, backward and explain ops share.
//
// `bind` checks shapes and dtypes at once and makes the params; contents of index tensors (lengths, row lists, pages) exist only when the
// stream gets there, so `check_lists` looks at them inside the task, before a kernel follows them. A bound call owns what its pointers
// point to except the tensors' storages, which the task keeps alive.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/attention_params.h"
#include "core/op.h"
#include "core/program_plan.h"
#include "cuda/attention_forward_params.h"

namespace fovea {

// The tensor arguments in the order the binding passes them; absent ones have no storage.
enum AttentionOperand {
  kQuery,
  kKey,
  kValue,
  kBias,
  kMask,
  kKvLengths,
  kCuQ,
  kCuKv,
  kQRows,
  kKvRows,
  kPageTable,
  kKeyRanges,
  kAttentionOperands
};

// The integer arguments in the order the binding passes them. A block mask is described by the Block... entries.
enum AttentionInteger {
  kCausal,
  kBottomRight,
  kWindowLeft,
  kWindowRight,
  kQOffset,
  kKvOffset,
  kBlockQ,
  kBlockKv,
  kBlockQLength,
  kBlockKvLength,
  kBlockBatch,
  kBlockHeads,
  kOutInOrder,
  kAttentionIntegers
};

struct AttentionArguments {
  const std::vector<Tensor>& operands;  // kAttentionOperands
  const std::vector<Tensor>& block;     // row_begin, columns, tiles, bits of a block mask; empty = none
  const std::vector<Tensor>& tables;    // captured tables of the score program, contiguous f32, i32 or u8
  const Bytes& program;                 // encoded score program, empty = none
  const Bytes& uniforms;
  const std::vector<int64_t>& integers;  // kAttentionIntegers
  double scale, softcap;
};

// A program with everything it points to.
struct BoundProgram {
  std::vector<MaskInstr> code;
  std::vector<MaskScatter> scatters;
  std::vector<int32_t> uniforms;
  std::vector<MaskTable> tables;
  MaskProgram program{};
  std::unique_ptr<ProgramPlan> plan;

  // Throws ERR_ARGUMENT for anything but a program as lib/mask/program.ts encodes it.
  BoundProgram(const char* op, ProgramPlan::Kind kind, const Bytes& flat, const Bytes& uniform_bits, const std::vector<Tensor>& captured);
};

class AttentionCall {
 public:
  // `any_device`: operands may be on several (explain reads lists on the host).
  static std::shared_ptr<AttentionCall> bind(const char* op, const AttentionArguments& args, bool any_device = false);

  AttentionParams params{};  // out and lse are the caller's to set
  Device device;             // of the operands; check_lists is for the CPU alone
  std::unique_ptr<BoundProgram> score;
  std::vector<Storage*> reads;

  // What lists are held against on a CUDA device.
  cuda::AttentionLimits limits() const;
  // Throws ERR_INDEX or ERR_SHAPE for index tensors whose contents point outside the operands.
  void check_lists() const;

 private:
  void bind_operands(const char* op, const std::vector<Tensor>& t);
  void bind_grids(const char* op, const std::vector<Tensor>& t);
  void bind_lists(const char* op, const std::vector<Tensor>& t);
  void bind_block_mask(const char* op, const std::vector<Tensor>& block, const std::vector<int64_t>& integers);
  void check_packed() const;
  void check_rows(const int32_t* rows, int64_t sb, int64_t sh, int64_t heads, int64_t count, int64_t limit, const char* what) const;
  void check_pages() const;

  std::string op_;
  BlockMaskView block_{};
  int64_t physical_q_ = 0, physical_kv_ = 0, pages_ = 0;
  int64_t grid_q_ = 0, grid_kv_ = 0;  // smallest extents of bias and mask along q and kv, where not broadcast; packed calls check them
};

AttentionTensor attention_tensor(const Tensor& t);
// `t` seen as [batch, heads, q, kv]; stride 0 where broadcast. Throws ERR_SHAPE.
AttentionGrid attention_grid(const char* op, const char* what, const Tensor& t, const Dims& target);

}  // namespace fovea
