// Control flow, barriers and collectives against the same functions on the host.
#include <algorithm>

#include "harness.h"

using namespace harness;

namespace {

std::vector<int> inputs(int n, uint32_t seed, int top = 4096) {
  std::mt19937 rng(seed);
  std::vector<int> v(n);
  for (auto& x : v) x = static_cast<int>(rng() % static_cast<uint32_t>(top));
  return v;
}

const Module& module_of_kernels() {
  static const Module m = Module::compiled("control");
  return m;
}

template <class F, class... Args>
void each(const char* kernel, const std::vector<int>& x, F want, Args... args) {
  const Buffer<int> in(x), out(std::vector<int>(x.size(), 12345));
  run(module_of_kernels().function(kernel), {1, static_cast<unsigned>(x.size())}, in.address(), out.address(), args...);
  const auto got = out.read();
  for (size_t i = 0; i < x.size(); ++i) {
    const int expected = want(static_cast<int>(i));
    check(got[i] == expected,
          std::string(kernel) + " thread " + std::to_string(i) + ": " + std::to_string(got[i]) + ", expected " + std::to_string(expected));
  }
}

int nested(int v) {
  int r = 0;
  if (v & 1) {
    if (v & 2) {
      for (int k = 0; k < (v >> 4 & 7); ++k) r += k * v;
    } else {
      r = -v;
      if (v & 4) r += 100;
    }
    return r ^ 0x55;
  }
  if (!(v & 8)) return 7;
  for (; v > 3; ++r) v = (v & 1) ? 3 * v / 4 : v / 2;
  return r;
}

int loops(int n) {
  int r = 0;
  for (int a = 0; a < n; ++a) {
    if (a == 11) continue;
    for (int b = a; b < 8; ++b) {
      if ((a ^ b) == 6) break;
      r += a * b + 1;
    }
    if (r > 300) break;
  }
  return r;
}

}  // namespace

TEST("nested branches reconverge") {
  const auto x = inputs(128, 1);
  each("nested", x, [&](int i) { return nested(x[i]) + nested(x[(i & ~31) | ((i & 31) ^ 5)]); });
}

TEST("loops of different length reconverge") {
  const auto x = inputs(64, 2);
  each("loops", x, [&](int i) {
    uint32_t ballot = 0;
    for (int k = 0; k < 32; ++k) ballot |= static_cast<uint32_t>((x[(i & ~31) + k] & 31) > 15) << k;
    return loops(x[i] & 31) + static_cast<int>(ballot);
  });
}

TEST("early exits") {
  const auto x = inputs(96, 3);
  each("early_exit", x, [&](int i) {
    if (x[i] & 1) return 12345;
    int r = x[i] * 2;
    for (int k = 0; k < 10; ++k) {
      if ((x[i] >> 1 & 15) == k) return r;
      r += k;
    }
    return -1;
  });
}

TEST("switch") {
  const auto x = inputs(128, 4);
  each("choose", x, [&](int i) {
    const int v = x[i];
    const int r[] = {v + 1, v * 3, v ^ 0xff, -v, v / 3, v % 7, v << 2, v >> 1, v - 9, v - 9};
    return (v & 15) < 10 ? r[v & 15] : 0;
  });
}

TEST("an indexed branch") {
  const Module m(ptx_header() + R"(.visible .entry k(.param .u64 out) {
    .reg .b32 %t, %r; .reg .b64 %a, %o; .reg .pred %p;
    mov.u32 %t, %tid.x; ld.param.u64 %a, [out]; mul.wide.u32 %o, %t, 4; add.u64 %a, %a, %o;
    and.b32 %t, %t, 3;
    table: .branchtargets L2, L0, L1, L2;
    brx.idx %t, table;
    L0: mov.u32 %r, 10; bra END;
    L1: mov.u32 %r, 11; bra END;
    L2: mov.u32 %r, 12;
    END: st.global.u32 [%a], %r; ret; })");
  const Buffer<int> out(64);
  run(m.function("k"), {1, 64}, out.address());
  const auto got = out.read();
  const int want[] = {12, 10, 11, 12};
  for (int i = 0; i < 64; ++i) check(got[i] == want[i & 3], "thread " + std::to_string(i));
}

TEST("calls with structures") {
  struct Pair {
    int a;
    float b;
  };
  const auto x = inputs(64, 5, 512);
  each(
      "calls", x,
      [&](int i) {
        Pair p{5, 2.f};
        for (int k = 0; k < (x[i] & 7); ++k) {
          const int n = k + x[i];
          p = n & 1 ? Pair{p.a + n, p.b * 0.5f} : Pair{p.a * (n & 3), p.b + 1.f};
        }
        return p.a + static_cast<int>(p.b * 16.f);
      },
      Pair{5, 2.f});
}

TEST("block sums, atomics, last block") {
  const auto x = inputs(5000, 6);
  const Buffer<int> in(x), sum(std::vector<int>{0}), last(std::vector<int>{-1});
  const Buffer<unsigned> done(std::vector<unsigned>{0});
  run(module_of_kernels().function("total"), {7, 160}, in.address(), 5000, sum.address(), done.address(), last.address());
  int want = 0;
  for (int v : x) want += v;
  check(sum.read()[0] == want && last.read()[0] == want && done.read()[0] == 0,
        "sum " + std::to_string(sum.read()[0]) + ", expected " + std::to_string(want));
}

TEST("producer and consumer warps with named barriers") {
  const auto x = inputs(9 * 64, 7);
  const Buffer<int> in(x), out(64);
  run(module_of_kernels().function("pipeline"), {1, 128}, in.address(), out.address(), 9);
  const auto got = out.read();
  for (int i = 0; i < 64; ++i) {
    int want = 0;
    for (int k = 0; k < 9; ++k) want += x[k * 64 + 63 - i];
    check(got[i] == want, "thread " + std::to_string(i));
  }
}

TEST("producer and consumer warps with mbarriers") {
  const std::string body = R"(.visible .entry k(.param .u64 in, .param .u64 out) {
    .shared .align 8 .b8 bar[16]; .shared .align 4 .b8 slot[128];
    .reg .b32 %t, %l, %k, %r<4>, %ph; .reg .b64 %a, %b, %o, %st; .reg .pred %p<4>;
    mov.u32 %t, %tid.x; and.b32 %l, %t, 31; ld.param.u64 %a, [in]; ld.param.u64 %b, [out]; mul.wide.u32 %o, %l, 4; add.u64 %a, %a, %o; add.u64 %b, %b, %o;
    shl.b32 %l, %l, 2; mov.u32 %r0, slot; add.u32 %l, %l, %r0; setp.eq.u32 %p0, %t, 0;
    @%p0 mbarrier.init.shared.b64 [bar], 32; @%p0 mbarrier.init.shared.b64 [bar+8], 32; bar.sync 0;
    mov.u32 %k, 0; mov.u32 %r1, 0; setp.lt.u32 %p1, %t, 32;
    LOOP: and.b32 %ph, %k, 1; @!%p1 bra CONSUME;
    setp.eq.u32 %p2, %k, 0; @%p2 bra WRITE; xor.b32 %r2, %ph, 1;
    EMPTY: mbarrier.test_wait.parity.shared.b64 %p3, [bar+8], %r2; @!%p3 bra EMPTY;
    WRITE: ld.global.u32 %r3, [%a]; add.u32 %r3, %r3, %k; st.shared.u32 [%l], %r3; mbarrier.arrive.shared.b64 %st, [bar]; bra NEXT;
    CONSUME:
    FULL: mbarrier.try_wait.parity.shared.b64 %p3, [bar], %ph; @!%p3 bra FULL;
    xor.b32 %r2, %l, 4; ld.shared.u32 %r3, [%r2]; add.u32 %r1, %r1, %r3; MISSING
    NEXT: add.u32 %k, %k, 1; setp.lt.u32 %p2, %k, 6; @%p2 bra LOOP;
    @!%p1 st.global.u32 [%b], %r1; ret; })";
  const auto with = [&](const std::string& arrive) {
    std::string text = ptx_header() + body;
    return text.replace(text.find("MISSING"), 7, arrive);
  };
  const auto x = inputs(32, 9);
  const Buffer<int> in(x), out(32);
  const Module m(with("mbarrier.arrive.shared.b64 %st, [bar+8];"));
  run(m.function("k"), {1, 64}, in.address(), out.address());
  const auto got = out.read();
  for (int i = 0; i < 32; ++i) check(got[i] == 6 * x[i ^ 1] + 15, "thread " + std::to_string(i) + ": " + std::to_string(got[i]));
  // Reading after handing the slot back is a race with the producer's next write.
  const Module late(with("mbarrier.arrive.shared.b64 %st, [bar+8]; ld.shared.u32 %r3, [%r2];"));
  expect_fault(late.function("k"), {1, 64}, CUDA_ERROR_LAUNCH_FAILED, {"race"}, in.address(), out.address());
}

TEST("shuffles, votes, matches, reductions") {
  const Module m(ptx_header() + R"(.visible .entry k(.param .u64 in, .param .u64 out) {
    .reg .b32 %r<40>; .reg .b64 %a<4>; .reg .pred %p<8>;
    mov.u32 %r0, %tid.x; ld.param.u64 %a0, [in]; ld.param.u64 %a1, [out];
    mul.wide.u32 %a2, %r0, 4; add.u64 %a0, %a0, %a2; mul.wide.u32 %a2, %r0, 64; add.u64 %a1, %a1, %a2;
    ld.global.u32 %r1, [%a0];
    shfl.sync.up.b32 %r2|%p1, %r1, 3, 0, -1;
    shfl.sync.down.b32 %r3|%p2, %r1, 2, 0x101f, -1;
    shfl.sync.bfly.b32 %r4, %r1, 9, 31, -1;
    shfl.sync.idx.b32 %r5|%p3, %r1, 13, 0x181f, -1;
    selp.b32 %r6, 1, 0, %p1; selp.b32 %r7, 2, 0, %p2; selp.b32 %r8, 4, 0, %p3; add.u32 %r6, %r6, %r7; add.u32 %r6, %r6, %r8;
    st.global.v4.u32 [%a1], {%r2, %r3, %r4, %r5};
    setp.gt.u32 %p4, %r1, 2000;
    vote.sync.ballot.b32 %r9, %p4, 0xffffffff;
    vote.sync.any.pred %p5, !%p4, -1; selp.b32 %r10, 1, 0, %p5;
    and.b32 %r11, %r1, 7; match.any.sync.b32 %r12, %r11, -1;
    st.global.v4.u32 [%a1+16], {%r6, %r9, %r10, %r12};
    redux.sync.add.u32 %r13, %r1, -1; redux.sync.max.s32 %r14, %r1, -1; redux.sync.xor.b32 %r15, %r1, -1;
    bar.red.popc.u32 %r16, 0, %p4;
    st.global.v4.u32 [%a1+32], {%r13, %r14, %r15, %r16};
    mov.u32 %r17, %laneid; mov.u32 %r18, %lanemask_lt; mov.u32 %r19, %ntid.x; activemask.b32 %r20;
    st.global.v4.u32 [%a1+48], {%r17, %r18, %r19, %r20};
    ret; })");
  const auto x = inputs(64, 8);
  const Buffer<int> in(x);
  const Buffer<uint32_t> out(64 * 16);
  run(m.function("k"), {1, 64}, in.address(), out.address());
  const auto got = out.read();
  uint32_t popc = 0;
  for (int v : x) popc += v > 2000;
  for (int t = 0; t < 64; ++t) {
    const int l = t & 31, w = t & ~31;
    const auto at = [&](int lane) { return static_cast<uint32_t>(x[w + lane]); };
    uint32_t ballot = 0, same = 0, sum = 0, top = 0, bits = 0;
    for (int k = 0; k < 32; ++k) {
      ballot |= static_cast<uint32_t>(at(k) > 2000) << k;
      same |= static_cast<uint32_t>((at(k) & 7) == (at(l) & 7)) << k;
      sum += at(k), top = std::max(top, at(k)), bits ^= at(k);
    }
    const bool up = l >= 3, down = (l & 15) + 2 < 16;
    const uint32_t want[16] = {up ? at(l - 3) : at(l),
                               down ? at(l + 2) : at(l),
                               at(l ^ 9),
                               at((l & 24) | (13 & 7)),
                               up * 1u + down * 2u + 4u,
                               ballot,
                               ballot != ~0u,
                               same,
                               sum,
                               top,
                               bits,
                               popc,
                               static_cast<uint32_t>(l),
                               (1u << l) - 1,
                               64,
                               ~0u};
    for (int k = 0; k < 16; ++k)
      check(got[t * 16 + k] == want[k], "thread " + std::to_string(t) + " value " + std::to_string(k) + ": " +
                                            std::to_string(got[t * 16 + k]) + ", expected " + std::to_string(want[k]));
  }
}

TEST("loads and stores of all widths, local memory, constants") {
  const Module m(ptx_header() + R"(.const .align 4 .u32 table[4] = {7, 11, 13, 0x11};
    .global .align 8 .u64 where[2] = {table, generic(counter)+4};
    .global .u32 counter[2] = {5, 6};
    .visible .entry k(.param .u64 in, .param .u64 out, .param .align 8 .b8 blob[12]) {
    .local .align 8 .b8 space[16]; .shared .align 8 .b8 pool[64];
    .reg .b16 %h<4>; .reg .b32 %r<16>; .reg .b64 %a<8>;
    ld.param.u64 %a0, [in]; ld.param.u64 %a1, [out];
    ld.global.s8 %r0, [%a0]; ld.global.u8 %r1, [%a0+1]; ld.global.nc.L1::no_allocate.s16 %r2, [%a0+2]; ld.global.u16 %h0, [%a0+2]; cvt.u32.u16 %r3, %h0;
    st.global.v4.u32 [%a1], {%r0, %r1, %r2, %r3};
    ld.global.s32 %a2, [%a0+4]; st.global.u64 [%a1+16], %a2;
    ld.param.u32 %r4, [blob+8]; st.global.u32 [%a1+24], %r4;
    mov.u64 %a3, space; cvta.local.u64 %a3, %a3; st.u32 [%a3+4], %r1; ld.local.u32 %r5, [space+4]; st.global.u32 [%a1+28], %r5;
    mov.u64 %a4, table; ld.const.v2.u32 {%r6, %r7}, [%a4+8]; st.global.v2.u32 [%a1+32], {%r6, %r7};
    ld.global.u64 %a5, [where]; ld.u32 %r8, [%a5+4]; ld.global.u64 %a5, [where+8]; ld.global.u32 %r9, [%a5]; st.global.v2.b32 [%a1+40], {%r8, %r9};
    mov.u32 %r10, pool; st.shared.v2.u32 [%r10+8], {%r6, 99}; cvta.shared.u64 %a6, 8; mov.u64 %a6, pool; cvta.shared.u64 %a6, %a6; ld.v2.u32 {_, %r11}, [%a6+8]; st.global.u32 [%a1+48], %r11;
    ret; })");
  const std::vector<uint8_t> bytes = {0x80, 0x81, 0x02, 0xf0, 0xfe, 0xff, 0xff, 0xff};
  const Buffer<uint8_t> in(bytes);
  const Buffer<uint32_t> out(std::vector<uint32_t>(16, 0));
  struct Blob {
    uint32_t v[3];
  } blob{{1, 2, 77}};
  run(m.function("k"), {1, 1}, in.address(), out.address(), blob);
  const auto got = out.read();
  const uint32_t want[] = {0xffffff80, 0x81, 0xfffff002, 0xf002, 0xfffffffe, 0xffffffff, 77, 0x81, 13, 0x11, 11, 6, 99};
  for (size_t k = 0; k < std::size(want); ++k)
    check(got[k] == want[k], "value " + std::to_string(k) + ": " + std::to_string(got[k]) + ", expected " + std::to_string(want[k]));
}

TEST("votes of all, reductions to the least") {
  const Module m(ptx_header() + R"(.visible .entry k(.param .u64 in, .param .u64 out) {
    .reg .b32 %t, %r<4>; .reg .b64 %a, %b, %o; .reg .pred %p<3>;
    mov.u32 %t, %tid.x; ld.param.u64 %a, [in]; ld.param.u64 %b, [out]; mul.wide.u32 %o, %t, 4; add.u64 %a, %a, %o; add.u64 %b, %b, %o;
    ld.global.u32 %r0, [%a]; setp.ge.s32 %p0, %r0, 0; vote.sync.all.pred %p1, %p0, -1; redux.sync.min.s32 %r1, %r0, -1;
    @%p1 bra.uni ALL; neg.s32 %r1, %r1; ALL: st.global.u32 [%b], %r1; ret; })");
  std::vector<int> x = inputs(64, 9);
  x[40] = -5;
  const Buffer<int> in(x), out(64);
  run(m.function("k"), {1, 64}, in.address(), out.address());
  const auto got = out.read();
  const int first = *std::min_element(x.begin(), x.begin() + 32);
  for (int i = 0; i < 64; ++i) check(got[i] == (i < 32 ? first : 5), "thread " + std::to_string(i));
}

TEST("calls written by hand") {
  const Module m(ptx_header() + R"(.func (.param .b32 sum) plus(.param .b32 a, .param .b64 b) {
    .reg .b32 %r<2>; .reg .b64 %f;
    ld.param.b32 %r0, [a]; ld.param.f64 %f, [b]; cvt.rzi.s32.f64 %r1, %f; add.s32 %r0, %r0, %r1; st.param.b32 [sum], %r0; ret; }
    .visible .entry k(.param .u64 out) {
    .reg .b32 %t; .reg .b64 %a, %o, %f;
    mov.u32 %t, %tid.x; ld.param.u64 %a, [out]; mul.wide.u32 %o, %t, 4; add.u64 %a, %a, %o; cvt.rn.f64.u32 %f, %t;
    { .param .b32 first; .param .b64 second; .param .b32 result;
      st.param.b32 [first], %t; st.param.f64 [second], %f; call.uni (result), plus, (first, second); ld.param.b32 %t, [result]; }
    st.global.u32 [%a], %t; ret; })");
  const Buffer<int> out(64);
  run(m.function("k"), {1, 64}, out.address());
  const auto got = out.read();
  for (int i = 0; i < 64; ++i) check(got[i] == 2 * i, "thread " + std::to_string(i));
}

TEST("atomics of shared memory that give the old value") {
  const Module m(ptx_header() + R"(.visible .entry k(.param .u64 out) {
    .shared .align 4 .b8 cell[8]; .reg .b32 %t, %r<3>; .reg .b64 %a, %o; .reg .pred %p;
    mov.u32 %t, %tid.x; ld.param.u64 %a, [out]; mul.wide.u32 %o, %t, 4; add.u64 %o, %a, %o; setp.eq.u32 %p, %t, 0;
    @%p st.shared.u32 [cell], 0; @%p st.shared.u32 [cell+4], -1; bar.sync 0;
    atom.shared.add.u32 %r0, [cell], 1; xor.b32 %r1, %t, 21; add.u32 %r1, %r1, 5; atom.shared.min.u32 %r2, [cell+4], %r1;
    st.global.u32 [%o], %r0; bar.sync 0; ld.shared.u32 %r1, [cell+4]; @%p st.global.u32 [%a+256], %r1; ret; })");
  const Buffer<uint32_t> out(65);
  run(m.function("k"), {1, 64}, out.address());
  auto got = out.read();
  check(got.back() == 5, "least");
  got.pop_back();
  std::sort(got.begin(), got.end());
  for (uint32_t i = 0; i < 64; ++i) check(got[i] == i, "each thread its own place");
}

TEST("global atomics that give the old value") {
  const Module m(ptx_header() + R"(.visible .entry k(.param .u64 p) {
    .reg .b32 %t, %bit, %old; .reg .b64 %a, %o, %one, %place;
    ld.param.u64 %a, [p]; mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, 8; add.u64 %o, %a, %o; mov.u64 %one, 1;
    atom.global.add.u64 %place, [%a], %one; st.global.u64 [%o+16], %place;
    and.b32 %bit, %t, 31; mov.u32 %old, 1; shl.b32 %bit, %old, %bit; atom.global.or.b32 %old, [%a+8], %bit; ret; })");
  const Buffer<uint64_t> p(std::vector<uint64_t>(66, 0));
  run(m.function("k"), {1, 64}, p.address());
  auto got = p.read();
  check(got[0] == 64 && got[1] == 0xffffffff, "sum and bits");
  std::sort(got.begin() + 2, got.end());
  for (uint64_t i = 0; i < 64; ++i) check(got[i + 2] == i, "each thread its own place");
}

TEST("the least of 64 bits, atomically") {
  const Module m(ptx_header() + R"(.visible .entry k(.param .u64 p) {
    .reg .b32 %t; .reg .b64 %a, %k, %old;
    ld.param.u64 %a, [p]; mov.u32 %t, %tid.x; xor.b32 %t, %t, 21; cvt.u64.u32 %k, %t; add.s64 %k, %k, 7; atom.global.min.u64 %old, [%a], %k; ret; })");
  const Buffer<uint64_t> p(std::vector<uint64_t>{~0ull});
  run(m.function("k"), {1, 64}, p.address());
  check(p.read()[0] == 7, "least");
}

TEST("atomics") {
  const Module m(ptx_header() + R"(.visible .entry k(.param .u64 p) {
    .reg .b32 %t, %r<4>; .reg .b64 %a, %d; .reg .f32 %f;  .shared .u32 s;
    ld.param.u64 %a, [p]; mov.u32 %t, %tid.x;
    atom.global.add.u32 %r0, [%a], 2; red.global.max.s32 [%a+4], %t; atom.global.min.u32 %r1, [%a+8], %t; red.relaxed.gpu.global.or.b32 [%a+12], %t;
    cvt.rn.f32.u32 %f, %t; red.global.add.f32 [%a+16], %f; atom.global.cas.b32 %r2, [%a+20], 40, 41; atom.global.exch.b32 %r3, [%a+24], 9;
    cvt.u64.u32 %d, %t; red.global.add.u64 [%a+32], %d; red.global.add.noftz.bf16x2 [%a+28], 0x3f803f80;
    setp_first: { .reg .pred %q; setp.eq.u32 %q, %t, 0; @%q st.shared.u32 [s], 0; } bar.sync 0; red.shared.add.u32 [s], 3; bar.sync 0;
    ld.shared.u32 %r0, [s]; st.global.u32 [%a+40], %r0; ret; })");
  std::vector<uint32_t> start(12, 0);
  start[2] = 50, start[5] = 40, start[6] = 8;
  const Buffer<uint32_t> p(start);
  run(m.function("k"), {1, 96}, p.address());
  const auto got = p.read();
  float sum;
  std::memcpy(&sum, &got[4], 4);
  check(got[0] == 192 && got[1] == 95 && got[2] == 0 && got[3] == 127 && sum == 4560.f && got[5] == 41 && got[6] == 9, "atomics");
  check(got[8] == 4560 && got[7] == 0x42c042c0 && got[10] == 288, "atomics of 64 bits, pairs, shared memory");
}

int main(int argc, char** argv) { return main_of_tests(argc, argv); }
