// What ops that run on several devices share: the device of the operands, and queuing the row of the dispatch that belongs to it.
//
// An op without a CUDA row needs none of this: the CPU's stream refuses memory of another device with ERR_UNSUPPORTED (core/stream.h).
#pragma once

#include <initializer_list>
#include <utility>

#include "core/stream.h"
#include "core/tensor.h"
#include "cuda/device.h"

namespace fovea {

// The device all operands are on; those without storage are skipped. Throws ERR_DEVICE when they are on several.
Device common_device(const char* op, std::initializer_list<const Tensor*> operands);

using Storages = std::initializer_list<Storage*>;

// Queues body(cuda::Stream&) on a CUDA device.
template <class Body>
uint64_t launch_cuda(const char* op, Device device, Storages reads, Storages writes, Body&& body, bool in_place = false) {
  cuda::Device& target = cuda::Device::get(device.ordinal);
  return target.stream().launch_spans(op, reads.begin(), reads.size(), writes.begin(), writes.size(), in_place,
                                      [&target, body = std::forward<Body>(body)](const TaskContext&) {
                                        cuda::Stream stream = target.launcher();
                                        body(stream);
                                      });
}

// Queues cpu(const TaskContext&) or cuda(cuda::Stream&).
template <class Cpu, class Cuda>
uint64_t launch(const char* op, Device device, Storages reads, Storages writes, Cpu&& cpu, Cuda&& cuda, bool in_place = false) {
  if (!device.is_cpu()) return launch_cuda(op, device, reads, writes, std::forward<Cuda>(cuda), in_place);
  return Stream::cpu().launch_spans(op, reads.begin(), reads.size(), writes.begin(), writes.size(), in_place, std::forward<Cpu>(cpu));
}

// The same for lists of storages made at run time.
template <class Cpu, class Cuda>
uint64_t launch_spans(const char* op, Device device, Storage* const* reads, size_t n_reads, Storage* const* writes, size_t n_writes,
                      bool in_place, Cpu&& cpu, Cuda&& cuda) {
  if (device.is_cpu()) return Stream::cpu().launch_spans(op, reads, n_reads, writes, n_writes, in_place, std::forward<Cpu>(cpu));
  cuda::Device& target = cuda::Device::get(device.ordinal);
  return target.stream().launch_spans(op, reads, n_reads, writes, n_writes, in_place,
                                      [&target, body = std::forward<Cuda>(cuda)](const TaskContext&) mutable {
                                        cuda::Stream stream = target.launcher();
                                        body(stream);
                                      });
}

}  // namespace fovea
