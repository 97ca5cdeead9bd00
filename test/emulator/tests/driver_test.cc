// The driver API around the kernels: devices, memory limits, pools, streams, events, errors that stick.
#include <dlfcn.h>

#include <atomic>
#include <thread>

#include "harness.h"

using namespace harness;

namespace {

const char* kWrite = R"(.visible .entry write(.param .u64 out, .param .u32 value) {
.reg .b32 %t, %v; .reg .b64 %a, %o; mov.u32 %t, %tid.x; ld.param.u64 %a, [out]; ld.param.u32 %v, [value];
mul.wide.u32 %o, %t, 4; add.u64 %a, %a, %o; add.u32 %v, %v, %t; st.global.u32 [%a], %v; ret; })";

}  // namespace

TEST("devices and attributes") {
  context();
  int count = 0, major = 0, optin = 0, version = 0;
  check(cuDeviceGetCount(&count) == CUDA_SUCCESS && count == 2, "two devices were asked for");
  check(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0) == CUDA_SUCCESS && major == 8, "capability 8.6");
  check(cuDeviceGetAttribute(&optin, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0) == CUDA_SUCCESS && optin == 99 * 1024,
        "shared memory");
  check(cuDriverGetVersion(&version) == CUDA_SUCCESS && version == 13000, "version");
  CUdevice none = 0;
  check(cuDeviceGet(&none, 2) == CUDA_ERROR_INVALID_DEVICE, "there is no third device");
#define FOVEA_CHECK_EXPORT(name) check(dlsym(RTLD_DEFAULT, #name) != nullptr, #name " is not exported");
  FOVEA_DRIVER_FUNCTIONS(FOVEA_CHECK_EXPORT)
#undef FOVEA_CHECK_EXPORT
}

TEST("memory ends, and the pool gives back") {
  context();
  CUdeviceptr a = 0, b = 0, c = 0;
  const size_t third = 24ull << 20;  // of 64 MB
  check(cuMemAllocAsync(&a, third, nullptr), "first");
  check(cuMemAllocAsync(&b, third, nullptr), "second");
  check(cuMemAllocAsync(&c, third, nullptr) == CUDA_ERROR_OUT_OF_MEMORY, "the third must not fit");
  CUmemoryPool pool = nullptr;
  check(cuDeviceGetDefaultMemPool(&pool, 0), "pool");
  uint64_t all = ~0ull, used = 0, reserved = 0;
  check(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all), "threshold");
  check(cuMemFreeAsync(b, nullptr), "free");
  check(cuStreamSynchronize(nullptr), "synchronize");
  check(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used), "used");
  check(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved), "reserved");
  check(used == third && reserved == 2 * third, "used " + std::to_string(used) + ", reserved " + std::to_string(reserved));
  check(cuMemAlloc_v2(&c, third) == CUDA_ERROR_OUT_OF_MEMORY, "the pool still holds it");
  check(cuMemPoolTrimTo(pool, 0), "trim");
  check(cuMemAlloc_v2(&c, third), "after trimming");
  check(cuMemFree_v2(c), "free c");
  check(cuMemFree_v2(a), "free a");
  check(cuMemFree_v2(a) == CUDA_ERROR_INVALID_VALUE, "freeing twice");
  uint64_t zero = 0;
  check(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &zero), "threshold");
  check(cuMemPoolTrimTo(pool, 0), "trim");
}

TEST("streams keep order, events carry it across") {
  const Module m(ptx_header() + kWrite);
  for (const char* mode : {"thread", "early", "late"}) {
    setenv("FOVEA_EMULATOR_STREAMS", mode, 1);
    CUstream one = nullptr, two = nullptr;
    CUevent done = nullptr;
    check(cuStreamCreate(&one, CU_STREAM_NON_BLOCKING), "stream");
    check(cuStreamCreate(&two, CU_STREAM_NON_BLOCKING), "stream");
    check(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING), "event");
    const Buffer<uint32_t> out(64);
    CUdeviceptr address = out.address();
    for (uint32_t k = 0; k < 20; ++k) {
      void* args[] = {&address, &k};
      check(cuLaunchKernel(m.function("write"), 1, 1, 1, 64, 1, 1, 0, one, args, nullptr), "launch");
    }
    check(cuEventRecord(done, one), "record");
    check(cuStreamWaitEvent(two, done, 0), "wait");
    void* pinned = nullptr;
    check(cuMemAllocHost_v2(&pinned, 256), "pinned");
    check(cuMemcpyDtoHAsync_v2(pinned, address, 256, two), "copy");
    static std::atomic<int> called;
    called = 0;
    check(cuLaunchHostFunc(
              two, [](void* p) { called = static_cast<uint32_t*>(p)[5] == 24 ? 1 : 2; }, pinned),
          "host function");
    check(cuStreamSynchronize(two), "synchronize");
    check(called == 1, std::string("the host function saw the wrong data with streams ") + mode);
    check(cuEventQuery(done), "query");
    check(cuStreamSynchronize(one), "synchronize");
    check(cuStreamQuery(one), "query");
    cuMemFreeHost(pinned);
    cuEventDestroy_v2(done);
    cuStreamDestroy_v2(one);
    cuStreamDestroy_v2(two);
  }
  unsetenv("FOVEA_EMULATOR_STREAMS");
}

TEST("late streams run without anybody waiting") {
  context();
  setenv("FOVEA_EMULATOR_STREAMS", "late", 1);
  CUstream s = nullptr;
  check(cuStreamCreate(&s, 0), "stream");
  static std::atomic<bool> called;
  called = false;
  check(cuLaunchHostFunc(
            s, [](void*) { called = true; }, nullptr),
        "host function");
  for (int k = 0; k < 2000 && !called; ++k) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  check(called, "the host function was never called");
  cuStreamDestroy_v2(s);
  unsetenv("FOVEA_EMULATOR_STREAMS");
}

TEST("pageable sources are taken at the call, pinned ones when the copy runs; fills and device copies") {
  const Buffer<uint32_t> a(16), b(16);
  std::vector<uint32_t> source(16, 3);
  check(cuMemcpyHtoDAsync_v2(a.address(), source.data(), 64, nullptr), "copy");
  source.assign(16, 4);
  check(cuMemcpyDtoDAsync_v2(b.address(), a.address(), 32, nullptr), "device copy");
  check(cuMemsetD32Async(b.address() + 32, 0x01020304, 4, nullptr), "fill");
  check(cuMemsetD8Async(b.address() + 48, 5, 16, nullptr), "fill");
  const auto got = b.read();
  check(got[0] == 3 && got[7] == 3 && got[8] == 0x01020304 && got[15] == 0x05050505, "copies and fills");
  check(cuMemcpyHtoDAsync_v2(a.address() + 32, source.data(), 64, nullptr) == CUDA_ERROR_INVALID_VALUE, "a copy over the end");
}

TEST("an error sticks until the context is reset, and names the kernel") {
  const Module m(ptx_header() + kWrite);
  const CUfunction f = m.function("write");
  expect_fault(f, {1, 64}, CUDA_ERROR_ILLEGAL_ADDRESS, {"write: out of bounds", "block (0,0,0)"}, CUdeviceptr{4096}, 1u);
  const Buffer<uint32_t> out(64);
  CUdeviceptr bad = 4096;
  uint32_t value = 1;
  void* args[] = {&bad, &value};
  check(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, nullptr, args, nullptr), "the launch itself is fine");
  check(cuStreamSynchronize(nullptr) == CUDA_ERROR_ILLEGAL_ADDRESS, "synchronize tells");
  CUdeviceptr p = 0;
  check(cuMemAlloc_v2(&p, 16) == CUDA_ERROR_ILLEGAL_ADDRESS && cuStreamSynchronize(nullptr) == CUDA_ERROR_ILLEGAL_ADDRESS,
        "every later call tells");
  const char* text = nullptr;
  check(cuGetErrorString(CUDA_ERROR_ILLEGAL_ADDRESS, &text) == CUDA_SUCCESS && std::strstr(text, "write"),
        "cuGetErrorString names the kernel");
  check(cuDevicePrimaryCtxReset_v2(0), "reset");
  run(f, {1, 64}, out.address(), 7u);
  check(out.read()[3] == 10, "works again");
}

TEST("a lost device") {
  const Module m(ptx_header() + kWrite);
  const Buffer<uint32_t> out(64);
  setenv("FOVEA_EMULATOR_LOSE", "wri", 1);
  expect_fault(m.function("write"), {1, 64}, CUDA_ERROR_LAUNCH_FAILED, {"device 0 was lost"}, out.address(), 7u);
  unsetenv("FOVEA_EMULATOR_LOSE");
  run(m.function("write"), {1, 64}, out.address(), 7u);
}

TEST("two devices have memories of their own") {
  context();
  CUcontext second = nullptr;
  check(cuDevicePrimaryCtxRetain(&second, 1), "retain");
  check(cuCtxSetCurrent(second), "current");
  CUdeviceptr there = 0;
  check(cuMemAlloc_v2(&there, 256), "alloc");
  check(cuMemsetD32Async(there, 77, 64, nullptr), "fill");
  check(cuStreamSynchronize(nullptr), "synchronize");
  check(cuCtxSetCurrent(context()), "current");
  const Module m(ptx_header() + kWrite);
  expect_fault(m.function("write"), {1, 64}, CUDA_ERROR_ILLEGAL_ADDRESS, {"not an address of this device"}, there, 1u);
  const Buffer<uint32_t> here(64);
  check(cuMemcpyPeerAsync(here.address(), context(), there, second, 256, nullptr), "peer copy");
  check(here.read()[63] == 77, "peer copy");
  check(cuCtxSetCurrent(second), "current");
  check(cuMemFree_v2(there), "free");
  check(cuCtxSetCurrent(context()), "current");
}

TEST("launches that can't be") {
  const Module m(ptx_header() + kWrite);
  const CUfunction f = m.function("write");
  const Buffer<uint32_t> out(64);
  check(launch(f, {1, 2048}, out.address(), 1u) == CUDA_ERROR_INVALID_VALUE, "too many threads");
  check(launch(f, {0, 32}, out.address(), 1u) == CUDA_ERROR_INVALID_VALUE, "no blocks");
  check(launch(f, {1, 32, 60000}, out.address(), 1u) == CUDA_ERROR_INVALID_VALUE, "dynamic shared memory without asking");
  check(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 60000), "asking");
  run(f, {1, 32, 60000}, out.address(), 1u);
  check(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 200000) == CUDA_ERROR_INVALID_VALUE, "more than there is");
}

TEST("nothing is left allocated") {
  check(foveaEmulatorLiveAllocations(0) == 0, std::to_string(foveaEmulatorLiveAllocations(0)) + " allocations are left");
}

int main(int argc, char** argv) {
  setenv("FOVEA_EMULATOR_DEVICES", "2", 1);
  setenv("FOVEA_EMULATOR_MEMORY", "67108864", 1);
  return main_of_tests(argc, argv);
}
