// Reductions over any axes of a strided tensor.
//
// Slots of a block (threads that share an output) take the elements of a row in turn: slot s elements s, s + slots, ...; then slots are
// merged by halves. Rows beyond kReduceChunk elements are cut into chunks, one block each, whose states a second kernel merges in order.
// Both depend on the row's length and layout alone, so a row's result does not depend on the others.
#include "reduce.cuh"

namespace fovea::cuda {

namespace {

__device__ __forceinline__ int64_t offset_of(int64_t i, int rank, const int64_t* shape, const int64_t* strides) {
  int64_t offset = 0;
#pragma unroll 1
  for (int a = rank - 1; a > 0; a--) {
    const int64_t rest = i / shape[a];
    offset += (i - rest * shape[a]) * strides[a];
    i = rest;
  }
  return rank > 0 ? offset + i * strides[0] : offset;
}

template <class T, class State>
__device__ __forceinline__ void reduce_chunk(const ReduceLaunch& launch, State state, void* shared) {
  static_assert(sizeof(State) <= kReduceStateBytes && kReduceStateBytes % alignof(State) == 0);
  const ReduceParams& p = launch.params;
  const int t = static_cast<int>(threadIdx.x), slots = launch.slots, outputs = kReduceThreads / slots;
  const int local = launch.columns ? t % outputs : t / slots, slot = launch.columns ? t / outputs : t % slots;
  const int64_t group = blockIdx.x / launch.chunks, chunk = blockIdx.x % launch.chunks, output = group * outputs + local;
  if (output < launch.kept) {
    const int64_t base = offset_of(output, p.kept_rank, p.kept_shape, p.kept_strides);
    const int64_t begin = chunk * kReduceChunk, end = min(begin + kReduceChunk, launch.reduced);
    for (int64_t i = begin + slot; i < end; i += slots) {
      const int64_t at =
          base + (p.reduced_rank == 1 ? i * p.reduced_strides[0] : offset_of(i, p.reduced_rank, p.reduced_shape, p.reduced_strides));
      state.step(load_as<T>(p.in_dtype, p.in, at), i);
    }
  }
  State* states = static_cast<State*>(shared);
  // Slots of an output lie `outputs` apart.
  const int place = slot * outputs + local;
  states[place] = state;
  for (int half = slots / 2; half > 0; half /= 2) {
    __syncthreads();
    if (slot < half) {
      State mine = states[place];
      mine.merge(states[place + half * outputs]);
      states[place] = mine;
    }
  }
  if (slot != 0 || output >= launch.kept) return;
  if (launch.chunks == 1) store_result(p, output, states[place].finish(p, launch.reduced));
  else *reinterpret_cast<State*>(static_cast<char*>(launch.states) + (output * launch.chunks + chunk) * kReduceStateBytes) = states[place];
}

template <class State>
__device__ __forceinline__ void merge_chunks(const ReduceLaunch& launch, State) {
  const int64_t output = global_thread();
  if (output >= launch.kept) return;
  const char* states = static_cast<const char*>(launch.states) + output * launch.chunks * kReduceStateBytes;
  State total = *reinterpret_cast<const State*>(states);
  for (int64_t chunk = 1; chunk < launch.chunks; chunk++) total.merge(*reinterpret_cast<const State*>(states + chunk * kReduceStateBytes));
  store_result(launch.params, output, total.finish(launch.params, launch.reduced));
}

template <class T>
__device__ __forceinline__ void reduce(const ReduceLaunch& launch) {
  __shared__ __align__(16) char shared[kReduceThreads * kReduceStateBytes];
  with_state<T>(static_cast<ReduceOp>(launch.params.op), [&](auto state) { reduce_chunk<T>(launch, state, shared); });
}

template <class T>
__device__ __forceinline__ void merge(const ReduceLaunch& launch) {
  with_state<T>(static_cast<ReduceOp>(launch.params.op), [&](auto state) { merge_chunks(launch, state); });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kReduceThreads) reduce_f32(const __grid_constant__ ReduceLaunch p) { reduce<float>(p); }
extern "C" __global__ void __launch_bounds__(kReduceThreads) reduce_f64(const __grid_constant__ ReduceLaunch p) { reduce<double>(p); }
extern "C" __global__ void __launch_bounds__(kReduceThreads) reduce_i64(const __grid_constant__ ReduceLaunch p) { reduce<int64_t>(p); }
extern "C" __global__ void reduce_merge_f32(const __grid_constant__ ReduceLaunch p) { merge<float>(p); }
extern "C" __global__ void reduce_merge_f64(const __grid_constant__ ReduceLaunch p) { merge<double>(p); }
extern "C" __global__ void reduce_merge_i64(const __grid_constant__ ReduceLaunch p) { merge<int64_t>(p); }

}  // namespace fovea::cuda
