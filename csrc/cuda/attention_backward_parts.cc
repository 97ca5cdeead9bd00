#include "cuda/attention_backward_parts.h"

#include <algorithm>

#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

constexpr int64_t kKeyBlocks = 128;  // wanted at least for a batch entry
constexpr int64_t kLeastVisits = 4;  // tiles of queries of a part, of every head

// Log2 of the blocks that share a tile of keys.
int parts_shift(const AttentionParams& p, const BackwardTiles& tiles, int64_t kv_tiles) {
  if (p.cu_q) return 0;                                // how many queries a tile of keys has is known on the device alone
  if (!tiles.single && tiles.bucket == 256) return 0;  // general kernels have no registers for it
  const int64_t visits = (p.len_q + tiles.queries - 1) / tiles.queries;
  const int64_t most = std::min(kKeyBlocks / std::max<int64_t>(1, kv_tiles * p.heads_kv), visits / kLeastVisits);
  int shift = 0;
  while (int64_t{2} << shift <= most) shift++;
  return shift;
}

}  // namespace

void add_parts(const AttentionBackwardPartsParams& p, Stream& stream) {
  stream.launch("attention_backward_parts", threads_for(p.batch * p.heads * p.rows * p.dim), {kThreads}, 0, p);
}

KeyParts::KeyParts(AttentionBackwardParams& params, const BackwardTiles& tiles, Stream& stream)
    : p_(params.forward.call),
      stream_(stream),
      parts_(int64_t{1} << parts_shift(p_, tiles, params.kv_tiles)),
      dtype_(params.grads.dtype),
      dk_(params.grads.dk),
      dv_(params.grads.dv) {
  params.key_parts_shift = parts_shift(p_, tiles, params.kv_tiles);
  if (parts_ == 1) return;
  params.grads.dk = take(dk_, p_.dim, dk_memory_);
  params.grads.dv = take(dv_, p_.dim_v, dv_memory_);
  params.grads.dtype = DType::F32;
}

AttentionTensor KeyParts::take(const AttentionTensor& wanted, int64_t dim, std::unique_ptr<Scratch>& memory) const {
  if (!wanted.data) return wanted;
  const int64_t head = p_.len_kv * dim, part = p_.heads_kv * head;
  memory.reset(new Scratch(stream_.scratch(static_cast<size_t>(p_.batch * parts_ * part) * sizeof(float))));
  return {memory->data(), part, head, dim, 1};
}

void KeyParts::add(const Scratch* memory, const AttentionTensor& to, int64_t dim) const {
  if (memory) add_parts({memory->data<float>(), to, dtype_, p_.batch, p_.heads_kv, p_.len_kv, dim, parts_}, stream_);
}

void KeyParts::finish() const {
  add(dk_memory_.get(), dk_, p_.dim);
  add(dv_memory_.get(), dv_, p_.dim_v);
}

}  // namespace fovea::cuda
