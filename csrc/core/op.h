// The registry of ops: plain C++ functions over tensors and scalars, made callable by name.
//
//   Tensor add(const Tensor& a, const Tensor& b);
//   static const RegisterOp<&add> registration{"add"};
//
// A binding (csrc/napi) implements Call for its language and exports every entry; the argument and result types of the function are all it
// needs. Arguments: const Tensor&, std::optional<Tensor>, std::vector<Tensor>, double, int64_t, bool, std::string, Dims,
// std::vector<int64_t>, Bytes. Results: void, Tensor, std::vector<Tensor>, double, bool, std::string, std::vector<int64_t>. Optional
// tensors are null where absent.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace fovea {

// Memory the caller lends for the duration of the call (a typed array).
struct Bytes {
  const void* data = nullptr;
  size_t size = 0;
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

class Call {
 public:
  virtual ~Call() = default;
  virtual bool is_null(int i) = 0;
  virtual const Tensor& tensor(int i) = 0;
  virtual std::vector<Tensor> tensors(int i) = 0;  // null entries are tensors without storage
  virtual double number(int i) = 0;
  virtual int64_t integer(int i) = 0;
  virtual bool boolean(int i) = 0;
  virtual std::string text(int i) = 0;
  virtual std::vector<int64_t> integers(int i) = 0;
  virtual Bytes bytes(int i) = 0;

  virtual void give(Tensor t) = 0;
  virtual void give(std::vector<Tensor> ts) = 0;  // tensors without storage arrive as null
  virtual void give(double x) = 0;
  virtual void give(bool x) = 0;
  virtual void give(const std::string& s) = 0;
  virtual void give(const std::vector<int64_t>& v) = 0;
};

struct OpEntry {
  const char* name;
  void (*invoke)(Call&);
  int arity;
};

// All registered ops, in no particular order.
std::vector<OpEntry>& op_registry();

namespace detail {

template <class T>
auto argument(Call& call, int i) {
  using A = std::remove_cvref_t<T>;
  if constexpr (std::is_same_v<A, Tensor>) return std::cref(call.tensor(i));
  else if constexpr (std::is_same_v<A, std::optional<Tensor>>) return call.is_null(i) ? A{} : A{call.tensor(i)};
  else if constexpr (std::is_same_v<A, std::vector<Tensor>>) return call.tensors(i);
  else if constexpr (std::is_same_v<A, bool>) return call.boolean(i);
  else if constexpr (std::is_floating_point_v<A>) return static_cast<A>(call.number(i));
  else if constexpr (std::is_integral_v<A>) return static_cast<A>(call.integer(i));
  else if constexpr (std::is_same_v<A, std::string>) return call.text(i);
  else if constexpr (std::is_same_v<A, std::vector<int64_t>>) return call.integers(i);
  else if constexpr (std::is_same_v<A, Bytes>) return call.bytes(i);
  else {
    static_assert(std::is_same_v<A, Dims>, "unsupported argument type");
    Dims dims;
    for (int64_t x : call.integers(i)) dims.push(x);
    return dims;
  }
}

template <auto Fn, class R, class... A, size_t... I>
void invoke(Call& call, R (*)(A...), std::index_sequence<I...>) {
  if constexpr (std::is_void_v<R>) Fn(argument<A>(call, I)...);
  else if constexpr (std::is_integral_v<R> && !std::is_same_v<R, bool>) call.give(static_cast<double>(Fn(argument<A>(call, I)...)));
  else call.give(Fn(argument<A>(call, I)...));
}

template <class R, class... A>
constexpr int arity(R (*)(A...)) {
  return sizeof...(A);
}

template <class R, class... A>
auto indices(R (*)(A...)) {
  return std::index_sequence_for<A...>{};
}

}  // namespace detail

template <auto Fn>
struct RegisterOp {
  explicit RegisterOp(const char* name) {
    op_registry().push_back({name, [](Call& call) { detail::invoke<Fn>(call, Fn, detail::indices(Fn)); }, detail::arity(Fn)});
  }
};

}  // namespace fovea
