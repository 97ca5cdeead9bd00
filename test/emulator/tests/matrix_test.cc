// Fragment layouts of mma, ldmatrix and stmatrix, written out from the PTX manual's tables independently of the emulator's code:
// groupID = lane / 4, threadID_in_group = lane % 4, and a row and column for every element of every register.
#include "harness.h"

using namespace harness;

namespace {

struct Position {
  int row, col;
};

// 16-bit A of m16n8k16 (8 elements) and m16n8k8 (4 elements).
Position a_half(int lane, int i) {
  const int group = lane >> 2, thread = lane & 3;
  return {(i % 4) < 2 ? group : group + 8, thread * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}
Position b_half(int lane, int i) { return {(lane & 3) * 2 + (i & 1) + (i >= 2 ? 8 : 0), lane >> 2}; }
Position c_word(int lane, int i) { return {(lane >> 2) + (i >= 2 ? 8 : 0), (lane & 3) * 2 + (i & 1)}; }
Position a_tf32(int lane, int i) { return {(lane >> 2) + (i & 1 ? 8 : 0), (lane & 3) + (i >= 2 ? 4 : 0)}; }
Position b_tf32(int lane, int i) { return {(lane & 3) + (i >= 1 ? 4 : 0), lane >> 2}; }
Position a_byte(int lane, int i) { return {(i % 8) < 4 ? lane >> 2 : (lane >> 2) + 8, (lane & 3) * 4 + (i & 3) + (i >= 8 ? 16 : 0)}; }
Position b_byte(int lane, int i) { return {(lane & 3) * 4 + (i & 3) + (i >= 4 ? 16 : 0), lane >> 2}; }

uint32_t bits_of(float v) {
  uint32_t b;
  std::memcpy(&b, &v, 4);
  return b;
}
float float_of(uint32_t b) {
  float v;
  std::memcpy(&v, &b, 4);
  return v;
}

// Small integers, so that every sum is exact whatever its order.
struct Matrices {
  std::vector<int> a, b, c;
  int k;
  explicit Matrices(int depth, int low, int high) : a(16 * depth), b(depth * 8), c(16 * 8), k(depth) {
    std::mt19937 rng(depth);
    std::uniform_int_distribution<int> pick(low, high);
    for (auto* m : {&a, &b, &c}) {
      for (int& x : *m) x = pick(rng);
    }
  }
  int product(int row, int col) const {
    int s = c[row * 8 + col];
    for (int e = 0; e < k; ++e) s += a[row * k + e] * b[e * 8 + col];
    return s;
  }
};

// A kernel with one mma: register r of lane l is word 32*r + l of its array.
std::string mma_kernel(const std::string& opcode, int n_d, int n_a, int n_b) {
  std::string text = ptx_header() +
                     ".visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u64 pd) {\n.reg .b64 %p<5>, %o; .reg .b32 "
                     "%t, %a<4>, %b<4>, %c<4>, %d<4>;\n"
                     "mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, 4;\n";
  const char* names = "abcd";
  const int counts[] = {n_a, n_b, n_d, n_d};
  std::string lists[4];
  for (int m = 0; m < 4; ++m) {
    const std::string p = "%p" + std::to_string(m);
    text += "ld.param.u64 " + p + ", [p" + names[m] + "]; add.u64 " + p + ", " + p + ", %o;\n";
    for (int r = 0; r < counts[m]; ++r) {
      const std::string reg = std::string("%") + names[m] + std::to_string(r);
      lists[m] += (r ? ", " : "") + reg;
      if (m < 3) text += "ld.global.u32 " + reg + ", [" + p + "+" + std::to_string(128 * r) + "];\n";
    }
  }
  text += opcode + " {" + lists[3] + "}, {" + lists[0] + "}, {" + lists[1] + "}, {" + lists[2] + "};\n";
  for (int r = 0; r < n_d; ++r) text += "st.global.u32 [%p3+" + std::to_string(128 * r) + "], %d" + std::to_string(r) + ";\n";
  return text + "ret; }";
}

// Puts element `position` of a matrix into part `part` of `bits` wide pieces of the fragment's registers.
template <class P, class E>
std::vector<uint32_t> fragment(int registers, int bits, P position, E element) {
  std::vector<uint32_t> words(32 * registers, 0);
  const int per = 32 / bits;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < registers * per; ++i) {
      const Position p = position(lane, i);
      const uint32_t v = element(p.row, p.col) & (bits == 32 ? ~0u : (1u << bits) - 1);
      words[32 * (i / per) + lane] |= v << (bits * (i % per));
    }
  }
  return words;
}

uint32_t half_of_integer(int v, bool bf16) {  // exact for small integers
  const uint32_t b = bits_of(static_cast<float>(v));
  if (bf16 || v == 0) return b >> 16;
  return (b >> 16 & 0x8000) | ((b >> 13) - (112u << 10)) % 0x8000;
}

void check_mma(const std::string& opcode, int k, int bits, int n_a, int n_b, const char* type, bool half_result = false) {
  const bool bytes = bits == 8;
  const Matrices m(k, type[0] == 'u' ? 0 : -5, 6);
  const bool bf16 = std::string(type) == "bf16";
  // Of a TF32 operand the low 13 bits don't count: they are set at random.
  std::mt19937 rest(1);
  const auto encode = [&](int v) -> uint32_t {
    return bits == 32 ? bits_of(static_cast<float>(v)) | (rest() & 0x1fff) : bytes ? static_cast<uint32_t>(v) : half_of_integer(v, bf16);
  };
  const auto a = fragment(n_a, bits, bits == 32 ? a_tf32 : bytes ? a_byte : a_half, [&](int r, int c) { return encode(m.a[r * k + c]); });
  const auto b = fragment(n_b, bits, bits == 32 ? b_tf32 : bytes ? b_byte : b_half, [&](int r, int c) { return encode(m.b[r * 8 + c]); });
  const auto accumulator = [&](auto value) {
    return half_result
               ? fragment(
                     2, 16, [](int l, int i) { return c_word(l, i); }, [&](int r, int c) { return half_of_integer(value(r, c), false); })
               : fragment(4, 32, c_word, [&](int r, int c) {
                   return bytes ? static_cast<uint32_t>(value(r, c)) : bits_of(static_cast<float>(value(r, c)));
                 });
  };
  const auto c = accumulator([&](int r, int col) { return m.c[r * 8 + col]; });
  const int n_d = half_result ? 2 : 4;
  const Module module(mma_kernel(opcode, n_d, n_a, n_b));
  const Buffer<uint32_t> da(a), db(b), dc(c), dd(32 * n_d);
  run(module.function("k"), {1, 32}, da.address(), db.address(), dc.address(), dd.address());
  const auto want = accumulator([&](int r, int col) { return m.product(r, col); });
  const auto got = dd.read();
  for (size_t i = 0; i < want.size(); ++i)
    check(got[i] == want[i], opcode + ": register " + std::to_string(i / 32) + " of lane " + std::to_string(i % 32));
}

const std::string kMma = "mma.sync.aligned.";

}  // namespace

TEST("mma of bf16 and f16") {
  check_mma(kMma + "m16n8k16.row.col.f32.bf16.bf16.f32", 16, 16, 4, 2, "bf16");
  check_mma(kMma + "m16n8k8.row.col.f32.bf16.bf16.f32", 8, 16, 2, 1, "bf16");
  check_mma(kMma + "m16n8k16.row.col.f32.f16.f16.f32", 16, 16, 4, 2, "f16");
  check_mma(kMma + "m16n8k8.row.col.f32.f16.f16.f32", 8, 16, 2, 1, "f16");
  check_mma(kMma + "m16n8k16.row.col.f16.f16.f16.f16", 16, 16, 4, 2, "f16", true);
}

TEST("mma of tf32") {
  check_mma(kMma + "m16n8k8.row.col.f32.tf32.tf32.f32", 8, 32, 4, 2, "tf32");
  check_mma(kMma + "m16n8k4.row.col.f32.tf32.tf32.f32", 4, 32, 2, 1, "tf32");
}

TEST("mma of bytes") {
  check_mma(kMma + "m16n8k32.row.col.s32.s8.s8.s32", 32, 8, 4, 2, "s8");
  check_mma(kMma + "m16n8k32.row.col.s32.u8.u8.s32", 32, 8, 4, 2, "u8");
  check_mma(kMma + "m16n8k16.row.col.s32.s8.s8.s32", 16, 8, 2, 1, "s8");
}

TEST("ldmatrix and stmatrix") {
  // 32 rows of 8 halves lie 48 bytes apart; row r of matrix m is given by lane 8m + r.
  for (const std::string trans : {"", ".trans"}) {
    const Module m(
        ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out) { .shared .align 16 .b8 "
        "s[1536]; .shared .align 16 .b8 u[512]; .reg .b32 %t, %a, %r<16>; .reg .b64 %p<4>;\n"
        "mov.u32 %t, %tid.x; ld.param.u64 %p0, [in]; ld.param.u64 %p1, [out]; mul.wide.u32 %p2, %t, 16; add.u64 %p0, %p0, %p2; "
        "mul.wide.u32 %p2, %t, 48; add.u64 %p1, %p1, %p2;\n"
        "ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%p0]; mov.u32 %a, s; mad.lo.u32 %a, %t, 48, %a; st.shared.v4.u32 [%a], {%r0, %r1, %r2, "
        "%r3}; bar.warp.sync -1;\n"
        "ldmatrix.sync.aligned.m8n8.x4" +
        trans +
        ".shared.b16 {%r4, %r5, %r6, %r7}, [%a]; st.global.v4.u32 [%p1], {%r4, %r5, %r6, %r7};\n"
        "ldmatrix.sync.aligned.m8n8.x2" +
        trans + ".shared.b16 {%r8, %r9}, [%a]; ldmatrix.sync.aligned.m8n8.x1" + trans +
        ".shared.b16 {%r10}, [%a+0]; st.global.v4.u32 [%p1+16], {%r8, %r9, %r10, %r10};\n"
        "mov.u32 %a, u; mad.lo.u32 %a, %t, 16, %a; stmatrix.sync.aligned.m8n8.x4" +
        trans +
        ".shared.b16 [%a], {%r4, %r5, %r6, %r7}; bar.warp.sync -1; ld.shared.v4.u32 {%r0, %r1, %r2, %r3}, [%a]; st.global.v4.u32 [%p1+32], "
        "{%r0, %r1, %r2, %r3}; ret; }");
    std::vector<uint16_t> rows(256);
    for (int i = 0; i < 256; ++i) rows[i] = static_cast<uint16_t>(1000 + i);
    const Buffer<uint16_t> in(rows);
    const Buffer<uint32_t> out(32 * 12);
    run(m.function("k"), {1, 32}, in.address(), out.address());
    const auto got = out.read();
    for (int lane = 0; lane < 32; ++lane) {
      for (int x = 0; x < 4; ++x) {
        const auto element = [&](int r, int c) {
          return static_cast<uint32_t>(rows[(8 * x + (trans.empty() ? r : c)) * 8 + (trans.empty() ? c : r)]);
        };
        const uint32_t want = element(lane / 4, 2 * (lane % 4)) | element(lane / 4, 2 * (lane % 4) + 1) << 16;
        check(got[lane * 12 + x] == want, "x4 matrix " + std::to_string(x) + " lane " + std::to_string(lane));
        if (x < 2) check(got[lane * 12 + 4 + x] == want, "x2");
        if (x < 1) check(got[lane * 12 + 6] == want, "x1");
        const uint32_t back = rows[lane * 8 + 2 * x] | static_cast<uint32_t>(rows[lane * 8 + 2 * x + 1]) << 16;
        check(got[lane * 12 + 8 + x] == back, "stmatrix is not the inverse of ldmatrix");
      }
    }
  }
}

int main(int argc, char** argv) {
  setenv("FOVEA_EMULATOR_CAPABILITY", "90", 1);
  return main_of_tests(argc, argv);
}
