// Every strict check with a kernel that must trip it, and its correct twin where a false alarm is the danger.
#include "harness.h"

using namespace harness;

namespace {

// The body of a kernel k(out, n) with %t = tid.x, %a = out, %n = n, %o = 4*tid; 64 words of shared memory `s`.
Module kernel(const std::string& body) {
  return Module(ptx_header() + R"(.visible .entry k(.param .u64 out, .param .u32 count) {
.shared .align 16 .b8 s[4096];
.reg .b32 %t, %n, %r<16>, %x, %sa; .reg .b64 %a, %o, %b, %d<8>; .reg .pred %p<8>; .reg .f32 %f<4>; .reg .b16 %h;
mov.u32 %t, %tid.x; ld.param.u64 %a, [out]; ld.param.u32 %n, [count]; mul.wide.u32 %o, %t, 4; add.u64 %b, %a, %o;
shl.b32 %sa, %t, 2; mov.u32 %x, s; add.u32 %sa, %sa, %x;
)" + body + "\nret;\n}\n");
}

void trips(const std::string& body, CUresult code, const std::vector<std::string>& parts, unsigned block = 32, unsigned grid = 1) {
  const Module m = kernel(body);
  const Buffer<uint32_t> out(std::vector<uint32_t>(256, 1));
  expect_fault(m.function("k"), {grid, block}, code, parts, out.address(), 256u);
}

void passes(const std::string& body, unsigned block = 32) {
  const Module m = kernel(body);
  const Buffer<uint32_t> out(std::vector<uint32_t>(256, 1));
  run(m.function("k"), {1, block}, out.address(), 256u);
}

constexpr CUresult kAddress = CUDA_ERROR_ILLEGAL_ADDRESS, kMisaligned = CUDA_ERROR_MISALIGNED_ADDRESS, kFailed = CUDA_ERROR_LAUNCH_FAILED;

}  // namespace

TEST("global accesses out of bounds") {
  trips("ld.global.u32 %r0, [%b+1000];", kAddress,
        {"k: out of bounds at ptx line", "`ld.global.u32 %r0, [%b+1000];`", "block (0,0,0), thread (6,0,0)",
         "byte 1024 of an allocation of 1024 bytes"});
  trips("st.global.u32 [%b+-4], %t;", kAddress, {"out of bounds", "thread (0,0,0)", "4 bytes before an allocation"});
  trips("mov.u64 %d0, 64; st.global.u32 [%d0], %t;", kAddress, {"not an address of this device"});
  trips("ld.global.v4.u32 {%r0,%r1,%r2,%r3}, [%a+1016];", kMisaligned, {"misaligned", "reading 16 bytes"});
  trips("red.global.add.u32 [%b+2000], 1;", kAddress, {"out of bounds"});
}

TEST("use after free") {
  const Module m = kernel("st.global.u32 [%b], %t;");
  CUdeviceptr gone = 0;
  check(cuMemAlloc_v2(&gone, 512), "alloc");
  check(cuMemFree_v2(gone), "free");
  expect_fault(m.function("k"), {1, 32}, kAddress, {"of an allocation of 512 bytes that was freed"}, gone, 0u);
}

TEST("shared, local and parameter accesses out of bounds") {
  trips("st.shared.u32 [%sa+4080], %t;", kAddress, {"out of bounds", "shared address 4096 of 4096", "thread (4,0,0)"});
  trips("st.shared.u32 [%sa+2], %t;", kMisaligned, {"shared address 0x2"});
  trips(".local .align 4 .b8 l[16]; mov.u64 %d0, l; add.u64 %d0, %d0, %o; st.local.u32 [%d0], %t;", kAddress,
        {"local address 16 of 16", "thread (4,0,0)"});
  trips("ld.param.u32 %r0, [count+8];", kAddress, {"parameter"});
}

TEST("misaligned global access") { trips("ld.global.u32 %r0, [%b+2];", kMisaligned, {"misaligned access", "not a multiple of 4"}); }

TEST("registers never written") {
  trips("add.u32 %r1, %r0, 1;", kFailed, {"uninitialised read", "register %r0 was never written"});
  trips("setp.gt.u32 %p0, %t, 7; @%p0 mov.u32 %r0, 1; st.global.u32 [%b], %r0;", kFailed, {"thread (0,0,0)", "%r0"});
  passes("setp.gt.u32 %p0, %t, 7; @%p0 mov.u32 %r0, 1; @!%p0 mov.u32 %r0, 2; st.global.u32 [%b], %r0;");
  passes("setp.gt.u32 %p0, %t, 7; @%p0 mov.u32 %r0, 1; mov.u32 %r1, %r0; @%p0 st.global.u32 [%b], %r1;");  // copying is no use
  passes("setp.gt.u32 %p0, %t, 7; @%p0 mov.u32 %r0, 1; selp.b32 %r1, %r0, 3, %p0; st.global.u32 [%b], %r1;");
  trips("setp.gt.u32 %p0, %t, 7; @%p0 mov.u32 %r0, 1; selp.b32 %r1, 3, %r0, %p0; st.global.u32 [%b], %r1;", kFailed,
        {"thread (0,0,0)", "%r1"});
}

TEST("memory never written") {
  const Module m = kernel("ld.global.u32 %r0, [%b];");
  const Buffer<uint32_t> raw(256);
  expect_fault(m.function("k"), {1, 32}, kFailed, {"uninitialised read", "never written", "byte 0 of an allocation of 1024"}, raw.address(),
               256u);
  trips("ld.shared.u32 %r0, [%sa];", kFailed, {"uninitialised read", "nobody has written"});
  trips(".local .align 4 .b8 l[16]; ld.local.u32 %r0, [l];", kFailed, {"uninitialised read", "local"});
  const Buffer<uint32_t> result(8);
  std::vector<uint32_t> host(8);
  cuMemcpyDtoHAsync_v2(host.data(), result.address(), 32, nullptr);
  const CUresult r = cuStreamSynchronize(nullptr);
  const std::string message = foveaEmulatorLastError();
  cuDevicePrimaryCtxReset_v2(0);
  check(r == kFailed && message.find("never written") != std::string::npos, "copying raw memory to the host must fail");
}

TEST("races in shared memory") {
  const std::string neighbour = "xor.b32 %r1, %sa, 128;";
  trips("st.shared.u32 [%sa], %t;" + neighbour + "ld.shared.u32 %r0, [%r1];", kFailed, {},
        64);  // a race, or never written, as the schedule has it
  passes("st.shared.u32 [%sa], %t;" + neighbour + "bar.sync 0; ld.shared.u32 %r0, [%r1];", 64);
  trips("st.shared.u32 [%sa], %t; bar.sync 0;" + neighbour + "ld.shared.u32 %r0, [%r1]; st.shared.u32 [%sa], 5;", kFailed,
        {"race", "no barrier in between"}, 64);
  passes("st.shared.u32 [%sa], %t; bar.sync 0;" + neighbour + "ld.shared.u32 %r0, [%r1]; bar.sync 0; st.shared.u32 [%sa], 5;", 64);
  trips("st.shared.u32 [s], 5;", kFailed, {"race", "wrote with no barrier"}, 64);
  passes("st.shared.u32 [%sa], %t; xor.b32 %r1, %sa, 4; ld.shared.u32 %r0, [%r1];", 64);  // within a warp the order of the program counts
  passes("cvt.u16.u32 %h, %t; add.u32 %r2, %x, %t; add.u32 %r2, %r2, %t; st.shared.u16 [%r2], %h; bar.sync 0; ld.shared.u16 %h, [%r2];",
         64);
}

TEST("named barriers order only those who come") {
  // Warps 0 and 1 meet at barrier 1; warp 2 reads what warp 0 wrote without having met it.
  const std::string body =
      "setp.lt.u32 %p0, %t, 64; setp.lt.u32 %p1, %t, 32; @%p1 st.shared.u32 [%sa], %t; @%p0 bar.sync 1, 64; and.b32 %r2, %t, 31; shl.b32 "
      "%r2, %r2, 2; add.u32 %r2, %r2, %x; ";
  passes(body + "@%p0 ld.shared.u32 %r0, [%r2];", 96);
  const Module m = kernel(body + "ld.shared.u32 %r0, [%r2];");
  const Buffer<uint32_t> out(std::vector<uint32_t>(256, 1));
  expect_fault(m.function("k"), {1, 96}, kFailed, {"thread (64,0,0)"}, out.address(), 256u);
}

TEST("divergent barriers") {
  trips("setp.gt.u32 %p0, %t, 7; @%p0 bra SKIP; bar.sync 0; SKIP:", kFailed, {"barrier"});
  trips("setp.gt.u32 %p0, %t, 7; @%p0 bar.sync 0;", kFailed, {"divergent"});
  trips("setp.gt.u32 %p0, %t, 7; @%p0 ret; bar.sync 0;", kFailed, {"have exited"});
  trips("setp.gt.u32 %p0, %t, 31; @%p0 bra SKIP; bar.sync 0; SKIP:", kFailed, {"deadlock", "Warp 0 waits", "Warp 1 has exited"}, 64);
  trips("setp.gt.u32 %p0, %t, 31; @%p0 bra SKIP; bar.sync 1; bra END; SKIP: bar.sync 2; END:", kFailed, {"deadlock"}, 64);
  trips("bar.sync 0, 48;", kFailed, {"multiple of 32"}, 64);
}

TEST("warp synchronisation") {
  trips("setp.gt.u32 %p0, %t, 7; @%p0 bra SKIP; shfl.sync.bfly.b32 %r0, %t, 1, 31, -1; SKIP: bar.warp.sync -1;", kFailed, {"divergent"});
  trips("setp.gt.u32 %p0, %t, 7; @%p0 ret; shfl.sync.bfly.b32 %r0, %t, 16, 31, -1;", kFailed, {"shuffle from lane 16"});
  trips("shfl.sync.bfly.b32 %r0, %t, 1, 31, 0xff;", kFailed, {"not in the member mask"});
  passes("setp.gt.u32 %p0, %t, 7; @%p0 bra SKIP; shfl.sync.bfly.b32 %r0, %t, 1, 31, 0xff; SKIP:");
  passes("setp.gt.u32 %p0, %t, 7; @%p0 bra B; bar.warp.sync -1; bra END; B: bar.warp.sync -1; END:");
  trips(
      "mov.b32 %r0, 0; setp.gt.u32 %p0, %t, 7; @%p0 bra SKIP; mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
      "{%f0,%f1,%f2,%f3},{%r0,%r0},{%r0},{0f00000000,0f00000000,0f00000000,0f00000000}; SKIP:",
      kFailed, {"warp synchronisation"});
}

TEST("cp.async") {
  const std::string copy = "cp.async.ca.shared.global [%sa], [%b], 4; cp.async.commit_group; ";
  passes(copy + "cp.async.wait_group 0; ld.shared.u32 %r0, [%sa]; setp.eq.u32 %p0, %r0, 1; @!%p0 trap;");
  trips(copy + "ld.shared.u32 %r0, [%sa];", kFailed, {"asynchronous copy", "cp.async of warp 0 still owns"});
  trips(copy + "cp.async.ca.shared.global [%sa+512], [%b], 4; cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r0, [%sa+512];",
        kFailed, {"asynchronous copy"});
  passes(copy + "cp.async.ca.shared.global [%sa+512], [%b], 4; cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r0, [%sa];");
  trips("cp.async.ca.shared.global [%sa], [%b], 4; cp.async.wait_group 0; ld.shared.u32 %r0, [%sa];", kFailed,
        {"asynchronous copy"});  // never committed
  passes("cp.async.ca.shared.global [%sa], [%b], 4; cp.async.wait_all; ld.shared.u32 %r0, [%sa];");
  trips(copy + "cp.async.wait_group 0; xor.b32 %r1, %sa, 128; ld.shared.u32 %r0, [%r1];", kFailed, {}, 64);  // waited, but no barrier
  passes(copy + "cp.async.wait_group 0; bar.sync 0; xor.b32 %r1, %sa, 128; ld.shared.u32 %r0, [%r1];", 64);
  trips("st.shared.u32 [%sa], 0; bar.sync 0; xor.b32 %r1, %sa, 128; ld.shared.u32 %r0, [%r1]; " + copy, kFailed, {},
        64);  // others may still read
  trips(
      "shl.b32 %r2, %t, 4; mov.u32 %r3, s; add.u32 %r2, %r2, %r3; mul.wide.u32 %d0, %t, 16; add.u64 %d0, %d0, %a; "
      "cp.async.cg.shared.global [%r2], [%d0+800], 16;",
      kAddress, {"out of bounds", "thread (14,0,0)"});
  passes(
      "mov.u64 %d0, 0; cp.async.cg.shared.global [s], [%d0], 16, 0; cp.async.wait_all; ld.shared.v4.u32 {%r0,%r1,%r2,%r3}, [s]; or.b32 "
      "%r0, %r0, %r3; setp.ne.u32 %p0, %r0, 0; @%p0 trap;",
      1);
}

TEST("traps, endless loops, assertions") {
  trips("setp.eq.u32 %p0, %t, 9; @%p0 trap;", CUDA_ERROR_ILLEGAL_INSTRUCTION, {"trap", "thread (9,0,0)"});
  setenv("FOVEA_EMULATOR_BRANCH_LIMIT", "50000", 1);
  trips("L: bra L;", CUDA_ERROR_LAUNCH_TIMEOUT, {"still looping"});
  unsetenv("FOVEA_EMULATOR_BRANCH_LIMIT");
}

TEST("modules that can't be loaded") {
  const auto refused = [](const std::string& ptx, CUresult code, const std::string& part) {
    context();
    char log[1024];
    CUjit_option names[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void* values[] = {log, reinterpret_cast<void*>(sizeof(log))};
    CUmodule m = nullptr;
    const CUresult r = cuModuleLoadDataEx(&m, ptx.c_str(), 2, names, values);
    check(r == code && std::string(log).find(part) != std::string::npos, "module gave " + std::to_string(r) + ", log: " + log);
  };
  refused(ptx_header() + ".visible .entry k() {\n.reg .b32 %r<2>;\n frobnicate.u32 %r0, %r1;\n}", CUDA_ERROR_INVALID_PTX,
          "ptx line 6: unknown instruction (frobnicate.u32)");
  refused(ptx_header() + ".visible .entry k() {\n.reg .b32 %r<2>;\n add.u32 %r0, %r7, 1;\n}", CUDA_ERROR_INVALID_PTX,
          "unknown special register '%r7'");
  refused(ptx_header() + ".visible .entry k() {\n.reg .b64 %r<2>;\n add.u32 %r0, %r1, 1;\n}", CUDA_ERROR_INVALID_PTX,
          "has 64 bits, the operand needs 32");
  refused(ptx_header() + ".visible .entry k() {\n bra NOWHERE;\n}", CUDA_ERROR_INVALID_PTX, "unknown name 'NOWHERE'");
  refused(".version 8.0\n.target sm_90a\n.address_size 64\n", CUDA_ERROR_NO_BINARY_FOR_GPU, "sm_90a");
  refused(".version 12.5\n.target sm_80\n.address_size 64\n", CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "12.5");
}

TEST("launches of a kernel take the schedules in turn") {
  setenv("FOVEA_EMULATOR_SCHEDULE", "turns", 1);
  unsetenv("FOVEA_EMULATOR_ASYNC");
  // Threads take numbers from 1 on: thread 0 the first or, when the second warp runs first, the 33rd.
  const Module m = kernel("atom.global.add.u32 %r0, [%a+1020], 1; st.global.u32 [%b], %r0;");
  for (const uint32_t expected : {1, 33, 0, 1, 33, 1, 33}) {
    const Buffer<uint32_t> out(std::vector<uint32_t>(256, 1));
    run(m.function("k"), {1, 64}, out.address(), 256u);
    const uint32_t got = out.read()[0];
    check(expected == 0 || got == expected, "thread 0 came as number " + std::to_string(got));
  }
  const Module bad = kernel("ld.global.u32 %r0, [%b+1000];");
  for (const char* turn : {"[schedule first, copies late]", "[schedule last, copies early]", "[schedule random, copies late]"}) {
    const Buffer<uint32_t> out(std::vector<uint32_t>(256, 1));
    check(launch(bad.function("k"), {1, 32}, out.address(), 256u) != CUDA_SUCCESS, "out of bounds");
    const std::string message = foveaEmulatorLastError();
    cuDevicePrimaryCtxReset_v2(0);
    check(message.find(turn) != std::string::npos, message);
  }
}

TEST("counters") {
  setenv("FOVEA_EMULATOR_PROFILE", "1", 1);
  foveaEmulatorResetReport();
  // Stride of 32 words: 32 wavefronts. Stride of one word: one wavefront, four sectors of global memory.
  passes("shl.b32 %r1, %t, 7; st.shared.u32 [%r1], %t; st.shared.u32 [%sa], %t; ld.global.u32 %r0, [%b];");
  unsetenv("FOVEA_EMULATOR_PROFILE");
  const std::string report = foveaEmulatorReport();
  for (const char* part :
       {"\"k\": {\"launches\": 1", "\"sharedStores\": {\"requests\": 2, \"wavefronts\": 33, \"conflicts\": 31, \"bytes\": 256}",
        "\"globalLoads\": {\"requests\": 1, \"sectors\": 4, \"bytes\": 128}"}) {
    check(report.find(part) != std::string::npos, std::string("the report lacks ") + part + ": " + report);
  }
}

int main(int argc, char** argv) { return main_of_tests(argc, argv); }
