// Binding of an attention call: shape and dtype rules in one place, for forward, backward and explain.
#include "ops/attention_call.h"

#include <algorithm>

#include "core/error.h"
#include "ops/device.h"

namespace fovea {
namespace {

constexpr int32_t kProgramMagic = 0x464d5031;
constexpr size_t kProgramHeader = 7;
constexpr int64_t kMaxDim = 256;

void check_index_tensor(const char* op, const char* what, const Tensor& t, int rank) {
  check(t.dtype == DType::I32, "ERR_DTYPE", op, ": ", what, " is ", name_of(t.dtype), ", expected i32");
  check(t.rank() == rank && t.contiguous(), "ERR_SHAPE", op, ": ", what, " has shape ", text_of(t.shape), ", expected ", rank,
        rank == 1 ? " axis" : " axes, contiguous");
}

}  // namespace

BoundProgram::BoundProgram(const char* op, ProgramPlan::Kind kind, const Bytes& flat, const Bytes& uniform_bits,
                           const std::vector<Tensor>& captured) {
  const int32_t* words = flat.as<int32_t>();
  const size_t count = flat.size / 4;
  check(count >= kProgramHeader && words[0] == kProgramMagic, "ERR_ARGUMENT", op, ": not an encoded score program");
  const int64_t size = words[1], scatter_count = words[6];
  check(size > 0 && size <= kMaskProgramMaxSize && scatter_count >= 0 && scatter_count <= kMaskProgramMaxSize &&
            count == kProgramHeader + 4 * static_cast<size_t>(size) + 3 * static_cast<size_t>(scatter_count),
        "ERR_ARGUMENT", op, ": score program of ", count, " words with size ", size);
  static_assert(sizeof(MaskInstr) == 16 && sizeof(MaskScatter) == 12);
  const auto* first = reinterpret_cast<const MaskInstr*>(words + kProgramHeader);
  code.assign(first, first + size);
  const auto* scatter = reinterpret_cast<const MaskScatter*>(words + kProgramHeader + 4 * size);
  scatters.assign(scatter, scatter + scatter_count);
  uniforms.assign(uniform_bits.as<int32_t>(), uniform_bits.as<int32_t>() + uniform_bits.size / 4);
  for (const Tensor& t : captured) {
    check(t.dtype == DType::F32 || t.dtype == DType::I32 || t.dtype == DType::U8, "ERR_DTYPE", op, ": a captured table is ",
          name_of(t.dtype), ", expected f32, i32 or u8");
    check(t.contiguous(), "ERR_ARGUMENT", op, ": a captured table is not contiguous");
    tables.push_back({t.data(), t.count(), t.dtype == DType::F32 ? 0 : t.dtype == DType::I32 ? 1 : 2});
  }
  program = {code.data(),     static_cast<int32_t>(size),
             words[2],        words[3],
             words[4],        words[5],
             scatters.data(), static_cast<int32_t>(scatter_count),
             tables.data(),   static_cast<int32_t>(tables.size()),
             uniforms.data(), static_cast<int32_t>(uniforms.size())};
  plan = std::make_unique<ProgramPlan>(program, kind);
}

AttentionTensor attention_tensor(const Tensor& t) { return {t.data(), t.strides[0], t.strides[1], t.strides[2], t.strides[3]}; }

AttentionGrid attention_grid(const char* op, const char* what, const Tensor& t, const Dims& target) {
  check(t.rank() <= 4, "ERR_SHAPE", op, ": ", what, " has shape ", text_of(t.shape), ", expected at most 4 axes [batch, heads, q, kv]");
  int64_t strides[4] = {};
  const int lead = 4 - t.rank();
  for (int i = lead; i < 4; i++) {
    int64_t extent = t.shape[i - lead];
    check(extent == target[i] || extent == 1, "ERR_SHAPE", op, ": ", what, " of shape ", text_of(t.shape), " does not broadcast to ",
          text_of(target));
    strides[i] = extent == 1 ? 0 : t.strides[i - lead];
  }
  return {t.data(), t.dtype, strides[0], strides[1], strides[2], strides[3]};
}

std::shared_ptr<AttentionCall> AttentionCall::bind(const char* op, const AttentionArguments& args, bool any_device) {
  check(args.operands.size() == kAttentionOperands && args.integers.size() == kAttentionIntegers, "ERR_ARGUMENT", op, ": got ",
        args.operands.size(), " operands and ", args.integers.size(), " integers");
  auto call = std::make_shared<AttentionCall>();
  const auto& n = args.integers;
  AttentionParams& p = call->params;
  call->op_ = op;
  p.scale = static_cast<float>(args.scale);
  p.softcap = static_cast<float>(args.softcap);
  check(p.scale == p.scale && p.softcap >= 0, "ERR_ARGUMENT", op, ": scale ", args.scale, ", softcap ", args.softcap);
  p.causal = n[kCausal] != 0;
  p.align = n[kBottomRight] ? Align::BottomRight : Align::TopLeft;
  p.window_left = std::max<int64_t>(n[kWindowLeft], -1), p.window_right = std::max<int64_t>(n[kWindowRight], -1);
  p.q_offset = n[kQOffset], p.kv_offset = n[kKvOffset];
  p.out_in_order = n[kOutInOrder] != 0;
  call->bind_operands(op, args.operands);
  call->bind_lists(op, args.operands);
  call->bind_grids(op, args.operands);
  if (!args.block.empty()) call->bind_block_mask(op, args.block, n);
  if (args.program.size) {
    call->score = std::make_unique<BoundProgram>(op, ProgramPlan::Kind::Score, args.program, args.uniforms, args.tables);
    p.score = &call->score->program;
  }
  const Tensor& q = args.operands[kQuery];
  call->device = q.device();
  for (const auto* list : {&args.operands, &args.block, &args.tables})
    for (const Tensor& t : *list) {
      if (!t.storage) continue;
      if (!any_device) common_device(op, {&q, &t});
      call->reads.push_back(t.storage.get());
    }
  return call;
}

void AttentionCall::bind_operands(const char* op, const std::vector<Tensor>& t) {
  const Tensor &q = t[kQuery], &k = t[kKey], &v = t[kValue];
  check(q.storage && k.storage && v.storage, "ERR_ARGUMENT", op, ": q, k and v are required");
  check(q.dtype == DType::F32 || q.dtype == DType::BF16 || q.dtype == DType::F16, "ERR_DTYPE", op, ": q is ", name_of(q.dtype),
        ", expected f32, bf16 or f16");
  check(k.dtype == q.dtype && v.dtype == q.dtype, "ERR_DTYPE", op, ": q, k, v are ", name_of(q.dtype), ", ", name_of(k.dtype), ", ",
        name_of(v.dtype), ", expected one dtype");
  check(q.rank() == 4 && k.rank() == 4 && v.rank() == 4, "ERR_SHAPE", op, ": got q ", text_of(q.shape), ", k ", text_of(k.shape), ", v ",
        text_of(v.shape), ", expected [batch, heads, length, dim]");
  const bool paged = static_cast<bool>(t[kPageTable].storage);
  AttentionParams& p = params;
  p.dtype = q.dtype;
  p.batch = q.shape[0], p.heads_q = q.shape[1], p.len_q = q.shape[2], p.dim = q.shape[3];
  p.heads_kv = k.shape[1], p.len_kv = k.shape[2], p.dim_v = v.shape[3];
  physical_q_ = p.len_q, physical_kv_ = p.len_kv;
  check(k.shape[3] == p.dim && k.shape[0] == v.shape[0] && k.shape[1] == v.shape[1] && k.shape[2] == v.shape[2] &&
            (paged || k.shape[0] == p.batch),
        "ERR_SHAPE", op, ": q ", text_of(q.shape), ", k ", text_of(k.shape), ", v ", text_of(v.shape),
        " do not fit: k and v share batch, heads and length, q and k share batch and dim");
  check(p.heads_kv > 0 && p.heads_q % p.heads_kv == 0, "ERR_SHAPE", op, ": ", p.heads_q, " query heads are not a multiple of ", p.heads_kv,
        " key heads");
  check(p.dim >= 1 && p.dim <= kMaxDim && p.dim_v >= 1 && p.dim_v <= kMaxDim, "ERR_SHAPE", op, ": head dims ", p.dim, " and ", p.dim_v,
        ", expected 1 to ", kMaxDim);
  p.q = attention_tensor(q), p.k = attention_tensor(k), p.v = attention_tensor(v);
}

void AttentionCall::bind_grids(const char* op, const std::vector<Tensor>& t) {
  AttentionParams& p = params;
  const bool packed = p.cu_q != nullptr;
  auto bind = [&](const Tensor& grid, const char* what) {
    // Packed sequences share a grid of their own positions, whose extents are compared with the longest sequence in check_packed.
    const int rank = grid.rank();
    int64_t rows = rank > 1 ? grid.shape[rank - 2] : 1, columns = rank > 0 ? grid.shape[rank - 1] : 1;
    if (packed && rows > 1) grid_q_ = grid_q_ ? std::min(grid_q_, rows) : rows;
    if (packed && columns > 1) grid_kv_ = grid_kv_ ? std::min(grid_kv_, columns) : columns;
    return attention_grid(op, what, grid, {p.batch, p.heads_q, packed ? rows : p.len_q, packed ? columns : p.len_kv});
  };
  if (const Tensor& bias = t[kBias]; bias.storage) {
    check(bias.dtype == DType::F32 || bias.dtype == DType::BF16 || bias.dtype == DType::F16, "ERR_DTYPE", op, ": bias is ",
          name_of(bias.dtype), ", expected f32, bf16 or f16");
    p.bias = bind(bias, "bias");
  }
  if (const Tensor& mask = t[kMask]; mask.storage) {
    check(mask.dtype == DType::Bool, "ERR_DTYPE", op, ": mask is ", name_of(mask.dtype), ", expected bool (true = visible)");
    p.mask = bind(mask, "mask");
  }
}

void AttentionCall::bind_lists(const char* op, const std::vector<Tensor>& t) {
  AttentionParams& p = params;
  if (const Tensor& lengths = t[kKvLengths]; lengths.storage) {
    check_index_tensor(op, "kvLengths", lengths, 1);
    check(lengths.shape[0] == p.batch, "ERR_SHAPE", op, ": kvLengths has ", lengths.shape[0], " entries, batch is ", p.batch);
    p.kv_lengths = lengths.data<int32_t>();
  }
  auto rows = [&](const Tensor& list, const char* what, int64_t heads, const int32_t** data, int64_t* sb, int64_t* sh, int64_t* length) {
    if (!list.storage) return;
    check_index_tensor(op, what, list, 3);
    check((list.shape[0] == p.batch || list.shape[0] == 1) && (list.shape[1] == heads || list.shape[1] == 1), "ERR_SHAPE", op, ": ", what,
          " has shape ", text_of(list.shape), ", expected [", p.batch, " or 1, ", heads, " or 1, rows]");
    *data = list.data<int32_t>(), *length = list.shape[2];
    *sb = list.shape[0] == 1 ? 0 : list.strides[0], *sh = list.shape[1] == 1 ? 0 : list.strides[1];
  };
  rows(t[kQRows], "qRows", p.heads_q, &p.q_rows, &p.q_rows_sb, &p.q_rows_sh, &p.len_q);
  rows(t[kKvRows], "kvRows", p.heads_kv, &p.kv_rows, &p.kv_rows_sb, &p.kv_rows_sh, &p.len_kv);
  if (const Tensor& pages = t[kPageTable]; pages.storage) {
    check_index_tensor(op, "pageTable", pages, 2);
    check(pages.shape[0] == p.batch && !p.kv_rows, "ERR_SHAPE", op, ": pageTable has shape ", text_of(pages.shape), ", batch is ", p.batch,
          p.kv_rows ? "; it excludes kvRows" : "");
    p.page_table = pages.data<int32_t>(), p.page_table_sb = pages.strides[0];
    p.page_size = physical_kv_, pages_ = t[kKey].shape[0];
    p.len_kv = pages.shape[1] * p.page_size;
  }
  if (const Tensor& ranges = t[kKeyRanges]; ranges.storage) {
    check_index_tensor(op, "keyRanges", ranges, 4);
    const Dims& s = ranges.shape;
    check((s[0] == p.batch || s[0] == 1) && (s[1] == p.heads_q || s[1] == 1) && s[2] == p.len_q && s[3] == 2, "ERR_SHAPE", op,
          ": keyRanges has shape ", text_of(s), ", expected [", p.batch, " or 1, ", p.heads_q, " or 1, ", p.len_q, ", 2]");
    p.key_ranges = ranges.data<int32_t>();
    p.key_ranges_sb = s[0] == 1 ? 0 : ranges.strides[0], p.key_ranges_sh = s[1] == 1 ? 0 : ranges.strides[1];
  }
  const Tensor &cu_q = t[kCuQ], &cu_kv = t[kCuKv];
  if (!cu_q.storage && !cu_kv.storage) return;
  check(cu_q.storage && cu_kv.storage, "ERR_ARGUMENT", op, ": cuSeqlens are needed for both q and kv");
  check_index_tensor(op, "cuSeqlens", cu_q, 1);
  check_index_tensor(op, "cuSeqlens", cu_kv, 1);
  check(p.batch == 1 && cu_q.shape[0] >= 1 && cu_q.shape[0] == cu_kv.shape[0], "ERR_SHAPE", op, ": cuSeqlens of ", cu_q.shape[0], " and ",
        cu_kv.shape[0], " entries with batch ", p.batch, "; packed sequences have batch 1 and one list entry more than sequences");
  check(!p.kv_lengths && !p.page_table, "ERR_UNSUPPORTED", op, ": cuSeqlens cannot be combined with kvLengths or pages");
  p.cu_q = cu_q.data<int32_t>(), p.cu_kv = cu_kv.data<int32_t>();
  p.sequences = cu_q.shape[0] - 1;
}

void AttentionCall::bind_block_mask(const char* op, const std::vector<Tensor>& block, const std::vector<int64_t>& n) {
  check(block.size() == 4, "ERR_ARGUMENT", op, ": a block mask has 4 arrays, got ", block.size());
  for (int i = 0; i < 3; i++) check_index_tensor(op, "block mask", block[i], 1);
  check(block[3].dtype == DType::U8 && block[3].contiguous(), "ERR_DTYPE", op, ": bits of a block mask are u8");
  const AttentionParams& p = params;
  BlockMaskView& m = block_;
  m.block_q = static_cast<int32_t>(n[kBlockQ]), m.block_kv = static_cast<int32_t>(n[kBlockKv]);
  check(m.block_q >= 16 && m.block_q % 16 == 0 && m.block_kv >= 1, "ERR_ARGUMENT", op, ": block mask of blocks ", m.block_q, " x ",
        m.block_kv, ", expected a multiple of 16 queries");
  m.q_length = n[kBlockQLength], m.kv_length = n[kBlockKvLength];
  m.q_blocks = static_cast<int32_t>((m.q_length + m.block_q - 1) / m.block_q);
  m.kv_blocks = static_cast<int32_t>((m.kv_length + m.block_kv - 1) / m.block_kv);
  const int64_t batch = n[kBlockBatch], heads = n[kBlockHeads];
  check((batch == 1 || batch == p.batch) && (heads == 1 || heads == p.heads_q), "ERR_SHAPE", op, ": block mask for ", batch,
        " batches and ", heads, " heads, the call has ", p.batch, " and ", p.heads_q);
  if (!p.cu_q)
    check(m.q_length >= p.len_q && m.kv_length >= p.len_kv, "ERR_SHAPE", op, ": block mask of ", m.q_length, " queries and ", m.kv_length,
          " keys, the call has ", p.len_q, " and ", p.len_kv);
  check(block[0].shape[0] == batch * heads * m.q_blocks + 1 && block[1].shape[0] == block[2].shape[0], "ERR_SHAPE", op,
        ": block mask with ", block[0].shape[0], " row beginnings, ", block[1].shape[0], " columns and ", block[2].shape[0], " tiles");
  m.batch_stride = batch == 1 ? 0 : static_cast<int32_t>(heads * m.q_blocks), m.head_stride = heads == 1 ? 0 : m.q_blocks;
  m.row_begin = block[0].data<int32_t>(), m.columns = block[1].data<int32_t>(), m.tiles = block[2].data<int32_t>();
  m.bits = block[3].data<uint8_t>();
  params.block_mask = &block_;
}

cuda::AttentionLimits AttentionCall::limits() const {
  const AttentionParams& p = params;
  auto narrow = [](int64_t n) { return static_cast<int32_t>(std::min<int64_t>(n, INT32_MAX)); };
  auto covered = [&](int64_t grid, int64_t block) { return narrow(std::min(grid ? grid : INT32_MAX, p.block_mask ? block : INT32_MAX)); };
  return {narrow(physical_q_), narrow(p.page_table ? pages_ : physical_kv_), covered(grid_q_, block_.q_length),
          covered(grid_kv_, block_.kv_length)};
}

void AttentionCall::check_lists() const {
  const AttentionParams& p = params;
  if (p.cu_q) check_packed();
  if (p.q_rows) check_rows(p.q_rows, p.q_rows_sb, p.q_rows_sh, p.heads_q, p.len_q, physical_q_, "qRows");
  if (p.kv_rows) check_rows(p.kv_rows, p.kv_rows_sb, p.kv_rows_sh, p.heads_kv, p.len_kv, physical_kv_, "kvRows");
  if (p.page_table) check_pages();
}

void AttentionCall::check_packed() const {
  const AttentionParams& p = params;
  int64_t longest_q = 0, longest_kv = 0;
  auto check_list = [&](const int32_t* cu, int64_t total, const char* what, int64_t* longest) {
    check(cu[0] == 0 && cu[p.sequences] == total, "ERR_SHAPE", op_, ": cuSeqlens of ", what, " run from ", cu[0], " to ", cu[p.sequences],
          ", expected 0 to ", total);
    for (int64_t s = 0; s < p.sequences; s++) {
      check(cu[s] <= cu[s + 1], "ERR_SHAPE", op_, ": cuSeqlens of ", what, " fall from ", cu[s], " to ", cu[s + 1]);
      *longest = std::max<int64_t>(*longest, cu[s + 1] - cu[s]);
    }
  };
  check_list(p.cu_q, p.len_q, "q", &longest_q);
  check_list(p.cu_kv, p.len_kv, "kv", &longest_kv);
  check((!grid_q_ || grid_q_ >= longest_q) && (!grid_kv_ || grid_kv_ >= longest_kv), "ERR_SHAPE", op_, ": bias or mask covers ", grid_q_,
        " queries and ", grid_kv_, " keys, the longest sequence has ", longest_q, " and ", longest_kv);
  if (p.block_mask)
    check(p.block_mask->q_length >= longest_q && p.block_mask->kv_length >= longest_kv, "ERR_SHAPE", op_, ": block mask of ",
          p.block_mask->q_length, " queries and ", p.block_mask->kv_length, " keys, the longest sequence has ", longest_q, " and ",
          longest_kv);
}

void AttentionCall::check_rows(const int32_t* rows, int64_t sb, int64_t sh, int64_t heads, int64_t count, int64_t limit,
                               const char* what) const {
  for (int64_t b = 0; b < (sb ? params.batch : 1); b++)
    for (int64_t h = 0; h < (sh ? heads : 1); h++) {
      const int32_t* list = rows + b * sb + h * sh;
      int32_t lowest = 0, highest = -1;
      for (int64_t i = 0; i < count; i++) lowest = std::min(lowest, list[i]), highest = std::max(highest, list[i]);
      const int32_t bad = lowest < -1 ? lowest : highest;
      check(bad < limit && lowest >= -1, "ERR_INDEX", op_, ": ", what, " names row ", bad, " of ", limit);
    }
}

void AttentionCall::check_pages() const {
  const AttentionParams& p = params;
  for (int64_t b = 0; b < p.batch; b++) {
    int64_t keys = p.kv_lengths ? std::clamp<int64_t>(p.kv_lengths[b], 0, p.len_kv) : p.len_kv;
    for (int64_t i = 0; i * p.page_size < keys; i++) {
      int32_t page = p.page_table[b * p.page_table_sb + i];
      check(page >= -1 && page < pages_, "ERR_INDEX", op_, ": pageTable names page ", page, " of ", pages_);
    }
  }
}

}  // namespace fovea
