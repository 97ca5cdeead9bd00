// Loads, stores and copies of every width through every space: what arrives is what was there.
#include "harness.h"

using namespace harness;

namespace {

int vector_of(const std::string& opcode) {
  return opcode.find(".v4.") != std::string::npos ? 4 : opcode.find(".v2.") != std::string::npos ? 2 : 1;
}

// {%v0, %v1} for vectors, %v0 for one.
std::string operand(int count) {
  std::string text = "%v0";
  for (int k = 1; k < count; ++k) text += ", %v" + std::to_string(k);
  return count == 1 ? text : "{" + text + "}";
}

// A thread's elements go from global memory through `store` and `load` of another space and back.
void round_trip(const std::string& from, const std::string& store, const std::string& load, const std::string& to, int element) {
  const int count = vector_of(from), bytes = element * count;
  const bool local = store.find(".local") != std::string::npos;
  const std::string place = local ? "%l" : "%s", values = operand(count);
  const Module m(
      ptx_header() + ".visible .entry k(.param .u64 in, .param .u64 out) {\n.local .align 16 .b8 space[64]; .shared .align 16 " +
      ".b8 pool[2048]; .reg .b32 %t, %s, %w; .reg .b64 %a, %b, %o, %l; .reg .b" + std::to_string(std::max(element, 2) * 8) +
      " %v<4>;\nmov.u32 %t, %tid.x; ld.param.u64 %a, [in]; cvta.to.global.u64 %a, %a; ld.param.u64 %b, [out]; mul.wide.u32 %o, %t, " +
      std::to_string(bytes) + "; add.s64 %a, %a, %o; add.s64 %b, %b, %o; mov.u64 %l, space; mov.u32 %s, pool; mad.lo.s32 %s, %t, " +
      std::to_string(bytes) + ", %s;\n" + from + " " + values + ", [%a]; " + store + " [" + place + "], " + values + "; " + load + " " +
      values + ", [" + place + "]; " + to + " [%b], " + values + "; ret; }");
  std::vector<uint8_t> data(static_cast<size_t>(64 * bytes));
  std::mt19937 rng(static_cast<uint32_t>(bytes));
  for (auto& x : data) x = static_cast<uint8_t>(rng());
  const Buffer<uint8_t> in(data), out(data.size());
  run(m.function("k"), {1, 64}, in.address(), out.address());
  check(out.read() == data, from + ", " + store + ", " + load + ", " + to);
}

}  // namespace

TEST("round trips") {
  round_trip("ld.global.f32", "st.shared.f32", "ld.shared.f32", "st.global.f32", 4);
  round_trip("ld.global.f64", "st.shared.f64", "ld.shared.f64", "st.global.f64", 8);
  round_trip("ld.global.s32", "st.shared.u32", "ld.shared.s32", "st.global.u32", 4);
  round_trip("ld.global.nc.u32", "st.shared.u32", "ld.shared.u32", "st.global.u32", 4);
  round_trip("ld.global.nc.u64", "st.shared.u64", "ld.shared.u64", "st.global.u64", 8);
  round_trip("ld.global.nc.f32", "st.local.u32", "ld.local.u32", "st.global.u32", 4);
  round_trip("ld.global.nc.b32", "st.local.u32", "ld.local.u32", "st.global.u32", 4);
  round_trip("ld.global.u64", "st.local.u64", "ld.local.u64", "st.global.u64", 8);
  round_trip("ld.global.u16", "st.shared.u16", "ld.shared.u16", "st.global.u16", 2);
  round_trip("ld.global.u8", "st.shared.u8", "ld.shared.u8", "st.global.u8", 1);
  round_trip("ld.global.nc.u8", "st.shared.u8", "ld.shared.u8", "st.global.u8", 1);
  round_trip("ld.global.v4.f32", "st.shared.v4.f32", "ld.shared.v4.f32", "st.global.v4.f32", 4);
  round_trip("ld.global.v4.u32", "st.shared.v4.u32", "ld.shared.v4.u32", "st.global.v4.u32", 4);
  round_trip("ld.global.v4.u32", "st.shared.v4.b32", "ld.shared.v4.f32", "st.global.v4.u32", 4);
  round_trip("ld.global.v2.f32", "st.shared.v2.f32", "ld.shared.v2.f32", "st.global.v2.f32", 4);
  round_trip("ld.global.v2.u32", "st.shared.v2.u32", "ld.shared.v2.u32", "st.global.v2.u32", 4);
  round_trip("ld.global.nc.v2.f64", "st.shared.v2.f64", "ld.shared.v2.f64", "st.global.v2.f64", 8);
  round_trip("ld.global.v2.u64", "st.shared.v2.u64", "ld.shared.v2.u64", "st.global.v2.u64", 8);
}

TEST("round trips by generic addresses, and of short vectors") {
  round_trip("ld.f32", "st.shared.f32", "ld.shared.f32", "st.f32", 4);
  round_trip("ld.u8", "st.shared.u8", "ld.shared.u8", "st.u8", 1);
  round_trip("ld.u16", "st.shared.u16", "ld.shared.u16", "st.u16", 2);
  round_trip("ld.v4.u32", "st.shared.v4.u32", "ld.shared.v4.u32", "st.v4.u32", 4);
  round_trip("ld.global.v2.u16", "st.shared.v2.u16", "ld.shared.v2.u16", "st.global.v2.u16", 2);
  round_trip("ld.global.v4.u16", "st.shared.v4.u16", "ld.shared.v4.u16", "st.global.v4.u16", 2);
}

TEST("parameters of every width") {
  const Module m(ptx_header() + R"(.visible .entry k(.param .u64 out, .param .align 8 .b8 blob[48]) {
    .reg .b16 %h<2>; .reg .b32 %r<16>; .reg .b64 %a, %d<4>;
    ld.param.u64 %a, [out];
    ld.param.u8 %h0, [blob]; cvt.u32.u16 %r0, %h0; ld.param.s8 %h1, [blob+1]; cvt.s32.s16 %r1, %h1;
    ld.param.s32 %r2, [blob+4]; ld.param.u32 %r3, [blob+8];
    st.global.v4.u32 [%a], {%r0, %r1, %r2, %r3};
    ld.param.b32 %r4, [blob+12]; ld.param.f32 %r5, [blob+16]; ld.param.v2.u8 {%h0, %h1}, [blob+2]; cvt.u32.u16 %r6, %h0; cvt.u32.u16 %r7, %h1;
    st.global.v4.u32 [%a+16], {%r4, %r5, %r6, %r7};
    ld.param.v2.f32 {%r8, %r9}, [blob+24]; ld.param.v2.u32 {%r10, %r11}, [blob+32];
    st.global.v4.u32 [%a+32], {%r8, %r9, %r10, %r11};
    ld.param.b64 %d0, [blob+24]; ld.param.f64 %d1, [blob+32]; st.global.v2.u64 [%a+48], {%d0, %d1};
    ret; })");
  struct Blob {
    uint8_t bytes[4] = {200, 201, 7, 9};
    uint32_t words[11] = {0xfffffff0, 2, 3, 4, 0, 16, 17, 18, 19, 0, 0};
  } blob;
  static_assert(sizeof(Blob) == 48);
  const Buffer<uint32_t> out(16);
  run(m.function("k"), {1, 1}, out.address(), blob);
  // blob+24 is word 5, blob+32 word 7.
  const std::vector<uint32_t> want = {200, static_cast<uint32_t>(201 - 256), 0xfffffff0, 2, 3, 4, 7, 9, 16, 17, 18, 19, 16, 17, 18, 19};
  check(out.read() == want, "parameters");
}

TEST("asynchronous copies, the rest filled with zeros") {
  const Module m(ptx_header() + R"(.visible .entry k(.param .u64 in, .param .u64 out) {
    .shared .align 16 .b8 pool[1024]; .reg .b32 %t, %s, %n, %r<4>; .reg .b64 %a, %b, %o;
    mov.u32 %t, %tid.x; ld.param.u64 %a, [in]; ld.param.u64 %b, [out]; mul.wide.u32 %o, %t, 16; add.s64 %a, %a, %o; add.s64 %b, %b, %o;
    mov.u32 %s, pool; mad.lo.s32 %s, %t, 32, %s; and.b32 %n, %t, 16;
    cp.async.cg.shared.global [%s], [%a], 16; cp.async.commit_group;
    cp.async.cg.shared.global [%s+16], [%a], 16, %n; cp.async.commit_group;
    cp.async.wait_group 1; ld.shared.v4.u32 {%r0, %r1, %r2, %r3}, [%s]; st.global.v4.u32 [%b], {%r0, %r1, %r2, %r3};
    cp.async.wait_group 0; ld.shared.v4.u32 {%r0, %r1, %r2, %r3}, [%s+16]; st.global.v4.u32 [%b+512], {%r0, %r1, %r2, %r3};
    ret; })");
  std::vector<uint32_t> words(128);
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint32_t>(1000 + i);
  const Buffer<uint32_t> in(words), out(256);
  run(m.function("k"), {1, 32}, in.address(), out.address());
  const auto got = out.read();
  for (size_t i = 0; i < 128; ++i) {
    check(got[i] == words[i], "whole, word " + std::to_string(i));
    check(got[128 + i] == (i / 4 & 16 ? words[i] : 0), "filled, word " + std::to_string(i));
  }
}

int main(int argc, char** argv) { return main_of_tests(argc, argv); }
