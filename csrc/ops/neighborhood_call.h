// One neighborhood attention call bound from tensors: shape rules shared by forward, backward, explain and the unfused pair.
#pragma once

#include <vector>

#include "core/neighborhood_params.h"
#include "core/op.h"

namespace fovea {

// The tensor arguments in the order the binding passes them; those after v may be absent.
enum NeighborhoodOperand { kNaQuery, kNaKey, kNaValue, kNaExtraKey, kNaExtraValue, kNaBias, kNaOperands };

// Integers per spatial axis: kernel, stride, dilation, causal.
constexpr int kNeighborhoodAxisIntegers = 4;

// Throws ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT. `out` and `lse` stay unset.
NeighborhoodParams bind_neighborhood(const char* op, const std::vector<Tensor>& operands, const std::vector<int64_t>& axes, double scale);

// The axes alone: 1 to 3 of them with lengths from `shape` [batch, ...space, heads, last].
void bind_neighborhood_axes(const char* op, NeighborhoodParams& p, const Dims& shape, const std::vector<int64_t>& axes);

// t [batch, ...space, heads, dim] with its space padded in front to three axes.
NeighborhoodTensor neighborhood_tensor(const Tensor& t);

Dims neighborhood_rows(const Tensor& q);  // shape of q without its last axis

}  // namespace fovea
