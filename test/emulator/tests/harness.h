// A small harness for tests of the emulator through its driver API: named tests, run under every schedule and delivery mode.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/driver_api.h"
#include "emulator.h"

namespace harness {

inline std::string ptx_folder;  // of kernels compiled by nvcc, the first argument

struct Test {
  const char* name;
  std::function<void()> run;
};
inline std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}
struct Register {
  Register(const char* name, std::function<void()> run) { tests().push_back({name, std::move(run)}); }
};

[[noreturn]] inline void fail(const std::string& message) { throw std::runtime_error(message); }
inline void check(bool condition, const std::string& message) {
  if (!condition) fail(message);
}
inline void check(CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return;
  const char* text = nullptr;
  cuGetErrorString(result, &text);
  fail(std::string(what) + ": " + (text ? text : std::to_string(result)));
}

inline CUcontext context() {
  static CUcontext c = [] {
    CUcontext made = nullptr;
    check(cuInit(0), "cuInit");
    check(cuDevicePrimaryCtxRetain(&made, 0), "cuDevicePrimaryCtxRetain");
    check(cuCtxSetCurrent(made), "cuCtxSetCurrent");
    return made;
  }();
  return c;
}

template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) {
    context();
    check(cuMemAlloc_v2(&address_, std::max<size_t>(count, 1) * sizeof(T)), "cuMemAlloc");
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) { write(values); }
  ~Buffer() { cuMemFree_v2(address_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void write(const std::vector<T>& values) {
    check(cuMemcpyHtoDAsync_v2(address_, values.data(), values.size() * sizeof(T), nullptr), "cuMemcpyHtoD");
  }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    check(cuMemcpyDtoHAsync_v2(values.data(), address_, count_ * sizeof(T), nullptr), "cuMemcpyDtoH");
    check(cuStreamSynchronize(nullptr), "cuStreamSynchronize");
    return values;
  }
  CUdeviceptr address() const { return address_; }

 private:
  size_t count_;
  CUdeviceptr address_ = 0;
};

inline std::string read_file(const std::string& path) {
  std::ifstream in(path);
  check(in.good(), "can't read " + path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Appends hand-written PTX to the file that FOVEA_EMULATOR_TESTED names, each text once: coverage.test.ts reads there which instructions
// tests compare with plain C++.
inline void note_tested(const std::string& ptx) {
  static std::set<std::string> noted;
  const char* path = std::getenv("FOVEA_EMULATOR_TESTED");
  if (path && noted.insert(ptx).second) std::ofstream(path, std::ios::app) << ptx << '\n';
}

class Module {
 public:
  explicit Module(const std::string& ptx, bool by_nvcc = false) {
    if (!by_nvcc) note_tested(ptx);
    context();
    std::vector<char> log(4096);
    CUjit_option names[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void* values[] = {log.data(), reinterpret_cast<void*>(log.size())};
    if (cuModuleLoadDataEx(&module_, ptx.c_str(), 2, names, values) != CUDA_SUCCESS) fail(std::string("module: ") + log.data());
  }
  ~Module() { cuModuleUnload(module_); }
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  static Module compiled(const std::string& stem) { return Module(read_file(ptx_folder + "/" + stem + ".ptx"), true); }
  CUfunction function(const char* name) const {
    CUfunction f = nullptr;
    check(cuModuleGetFunction(&f, module_, name), name);
    return f;
  }
  CUmodule handle() const { return module_; }

 private:
  CUmodule module_ = nullptr;
};

struct Shape {
  unsigned grid = 1, block = 32, shared = 0, grid_y = 1, grid_z = 1, block_y = 1;
};

template <class... Args>
CUresult launch(CUfunction f, Shape s, Args... args) {
  void* pointers[] = {static_cast<void*>(&args)..., nullptr};
  const CUresult r = cuLaunchKernel(f, s.grid, s.grid_y, s.grid_z, s.block, s.block_y, 1, s.shared, nullptr, pointers, nullptr);
  return r != CUDA_SUCCESS ? r : cuStreamSynchronize(nullptr);
}

template <class... Args>
void run(CUfunction f, Shape s, Args... args) {
  check(launch(f, s, args...), "launch");
}

// The kernel must fail with this code and a message that has all these parts.
template <class... Args>
void expect_fault(CUfunction f, Shape s, CUresult code, const std::vector<std::string>& parts, Args... args) {
  const CUresult r = launch(f, s, args...);
  const std::string message = foveaEmulatorLastError();
  cuDevicePrimaryCtxReset_v2(0);
  check(r == code, "expected error " + std::to_string(code) + ", got " + std::to_string(r) + ": " + (r == CUDA_SUCCESS ? "" : message));
  for (const auto& p : parts) check(message.find(p) != std::string::npos, "the message lacks '" + p + "': " + message);
}

inline std::string ptx_header() { return ".version 8.0\n.target sm_80\n.address_size 64\n"; }

inline int main_of_tests(int argc, char** argv) {
  if (argc > 1) ptx_folder = argv[1];
  const std::string only = argc > 2 ? argv[2] : "";
  setenv("FOVEA_EMULATOR_QUIET", "1", 1);
  const std::vector<std::pair<const char*, const char*>> modes = {
      {"first", "late"}, {"first", "early"}, {"last", "late"}, {"last", "early"}, {"random:7", "late"}};
  int failed = 0, passed = 0;
  for (const Test& t : tests()) {
    if (!only.empty() && std::string(t.name).find(only) == std::string::npos) continue;
    for (const auto& [schedule, delivery] : modes) {
      setenv("FOVEA_EMULATOR_SCHEDULE", schedule, 1);
      setenv("FOVEA_EMULATOR_ASYNC", delivery, 1);
      try {
        t.run();
        ++passed;
      } catch (const std::exception& e) {
        ++failed;
        std::printf("FAILED %s [%s, %s]: %s\n", t.name, schedule, delivery, e.what());
        cuDevicePrimaryCtxReset_v2(0);
      }
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || passed == 0;
}

}  // namespace harness

#define FOVEA_JOIN2(a, b) a##b
#define FOVEA_JOIN(a, b) FOVEA_JOIN2(a, b)
// TEST("name") { ... }
#define TEST(name)                                                                                    \
  static void FOVEA_JOIN(test_, __LINE__)();                                                          \
  static const harness::Register FOVEA_JOIN(register_, __LINE__)(name, &FOVEA_JOIN(test_, __LINE__)); \
  static void FOVEA_JOIN(test_, __LINE__)()
