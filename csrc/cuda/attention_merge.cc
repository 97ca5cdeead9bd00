#include "cuda/attention_merge.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "cuda/attention_merge_params.h"
#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

constexpr int64_t kRowsPerBlock = kThreads / 32;

int64_t piece_of(DType dtype) { return 16 / static_cast<int64_t>(size_of(dtype)); }

// Gathers lists of addresses and sends them to the device in one copy.
class Lists {
 public:
  // Where the list begins among the addresses.
  template <class T>
  size_t add(T* const* list, int64_t count) {
    const size_t first = addresses_.size();
    for (int64_t i = 0; i < count; i++) addresses_.push_back(const_cast<void*>(static_cast<const void*>(list[i])));
    return first;
  }
  size_t bytes() const { return addresses_.size() * sizeof(void*); }
  const void* data() const { return addresses_.data(); }
  bool aligned() const {
    return std::all_of(addresses_.begin(), addresses_.end(), [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; });
  }

 private:
  std::vector<void*> addresses_;
};

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

void launch(const char* stem, const AttentionMergeGrads& g, bool backward, Stream& stream) {
  const AttentionMergeParams& p = g.forward;
  if (p.rows == 0) return;
  AttentionMergeKernel k{g, 0};
  Lists lists;
  const size_t outs = lists.add(p.outs, p.count), douts = backward ? lists.add(g.douts, p.count) : 0;
  k.wide = p.dim % piece_of(p.dtype) == 0 && lists.aligned() && aligned(p.out) && aligned(g.dout);
  const size_t lses = lists.add(p.lses, p.count), dlses = backward ? lists.add(g.dlses, p.count) : 0;
  const Scratch scratch = stream.scratch(lists.bytes());
  stream.upload(scratch.data(), lists.data(), lists.bytes());
  const auto on_device = scratch.data<void*>();
  k.call.forward.outs = on_device + outs;
  k.call.forward.lses = reinterpret_cast<const float* const*>(on_device + lses);
  k.call.douts = on_device + douts;
  k.call.dlses = reinterpret_cast<float* const*>(on_device + dlses);
  char kernel[64];
  std::snprintf(kernel, sizeof kernel, "%s_%s", stem, name_of(p.dtype));
  const int64_t pieces = std::max<int64_t>(1, k.wide ? p.dim / piece_of(p.dtype) : p.dim);
  stream.launch(kernel, backward ? grid_of((p.rows + kRowsPerBlock - 1) / kRowsPerBlock) : threads_for(p.rows * pieces), {kThreads}, 0, k);
}

}  // namespace

void attention_merge(const AttentionMergeParams& p, Stream& stream) {
  launch("attention_merge", {p, nullptr, nullptr, nullptr, nullptr}, false, stream);
}

void attention_merge_backward(const AttentionMergeGrads& g, Stream& stream) { launch("attention_merge_backward", g, true, stream); }

}  // namespace fovea::cuda
