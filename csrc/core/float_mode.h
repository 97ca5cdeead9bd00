// The processor's floating-point mode of this thread: whether results too small for a normal float become zero.
//
// Softmax weights far below the maximum are denormal, and Intel processors take about a hundred times as long over an operation that meets
// one. Kernels that make such weights run in FlushDenormals; ThreadPool hands the caller's mode to its workers. Operands are left alone
// unless asked: tensors keep their denormals. Other architectures compute with denormals at full speed, so nothing is done there.
#pragma once

namespace fovea {

#if defined(__x86_64__)
static inline unsigned float_mode() { return __builtin_ia32_stmxcsr(); }
static inline void set_float_mode(unsigned mode) { __builtin_ia32_ldmxcsr(mode); }
#else
static inline unsigned float_mode() { return 0; }
static inline void set_float_mode(unsigned) {}
#endif

// Until the end of its scope, results of this thread that would be denormal are zero; with `operands`, denormal operands are too.
class FlushDenormals {
 public:
  explicit FlushDenormals(bool operands = false) : before_(float_mode()) {
    set_float_mode(before_ | kFlushToZero | (operands ? kDenormalsAreZero : 0));
  }
  ~FlushDenormals() { set_float_mode(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 1u << 15, kDenormalsAreZero = 1u << 6;  // of MXCSR
  unsigned before_;
};

}  // namespace fovea
