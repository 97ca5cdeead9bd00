#include "napi/call.h"

#include <cmath>

namespace fovea::napi {
namespace {

const char* name_of(napi_valuetype type) {
  constexpr const char* names[] = {"undefined", "null",      "a boolean",  "a number",          "a string",
                                   "a symbol",  "an object", "a function", "an external value", "a bigint"};
  return static_cast<size_t>(type) < std::size(names) ? names[type] : "something else";
}

}  // namespace

int64_t JsCall::whole(double x, int i) const {
  check(x == std::trunc(x) && std::abs(x) < 0x1p63, "ERR_ARGUMENT", name_, ": argument ", i, " is ", x,
        ", expected a whole number below 2^63");
  return static_cast<int64_t>(x);
}

JsCall::JsCall(napi_env env, napi_callback_info info) : env_(env), environment_(Environment::of(env)) {
  napi_get_cb_info(env, info, &count_, args_, nullptr, &data_);
  check(count_ <= kMaxArguments, "ERR_INTERNAL", "more than ", kMaxArguments, " arguments");
}

void JsCall::wrong(int i, const char* expected) {
  napi_valuetype type = napi_undefined;
  napi_typeof(env_, args_[i], &type);
  fail("ERR_ARGUMENT", name_, ": argument ", i, " is ", name_of(type), ", expected ", expected);
}

bool JsCall::is_null(int i) {
  if (static_cast<size_t>(i) >= count_) return true;
  napi_valuetype type;
  napi_typeof(env_, args_[i], &type);
  return type == napi_undefined || type == napi_null;
}

const Tensor& JsCall::tensor(int i) {
  double handle;
  if (napi_get_value_double(env_, args_[i], &handle) != napi_ok) wrong(i, "a tensor");
  return environment_.get(handle);
}

std::vector<Tensor> JsCall::tensors(int i) {
  uint32_t n;
  if (napi_get_array_length(env_, args_[i], &n) != napi_ok) wrong(i, "an array of tensors");
  std::vector<Tensor> out(n);
  for (uint32_t k = 0; k < n; k++) {
    napi_value element;
    double handle;
    napi_get_element(env_, args_[i], k, &element);
    if (napi_get_value_double(env_, element, &handle) == napi_ok) out[k] = environment_.get(handle);
  }
  return out;
}

double JsCall::number(int i) {
  double x;
  if (napi_get_value_double(env_, args_[i], &x) != napi_ok) wrong(i, "a number");
  return x;
}

int64_t JsCall::integer(int i) { return whole(number(i), i); }

bool JsCall::boolean(int i) {
  bool x;
  if (napi_get_value_bool(env_, args_[i], &x) != napi_ok) wrong(i, "a boolean");
  return x;
}

std::string JsCall::text(int i) {
  size_t length;
  if (napi_get_value_string_utf8(env_, args_[i], nullptr, 0, &length) != napi_ok) wrong(i, "a string");
  std::string s(length, '\0');
  napi_get_value_string_utf8(env_, args_[i], s.data(), length + 1, &length);
  return s;
}

std::vector<int64_t> JsCall::integers(int i) {
  uint32_t n;
  if (napi_get_array_length(env_, args_[i], &n) != napi_ok) wrong(i, "an array of integers");
  std::vector<int64_t> out(n);
  for (uint32_t k = 0; k < n; k++) {
    napi_value element;
    double x;
    napi_get_element(env_, args_[i], k, &element);
    if (napi_get_value_double(env_, element, &x) != napi_ok) wrong(i, "an array of integers");
    out[k] = whole(x, i);
  }
  return out;
}

Bytes JsCall::bytes(int i) {
  if (is_null(i)) return {};
  bool is_typed = false, is_buffer = false;
  napi_is_typedarray(env_, args_[i], &is_typed);
  void* data = nullptr;
  if (is_typed) {
    // A kind of array that this Node-API does not know leaves `type` as it is.
    constexpr size_t element_bytes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
    auto type = static_cast<napi_typedarray_type>(std::size(element_bytes));
    size_t length;
    napi_get_typedarray_info(env_, args_[i], &type, &length, &data, nullptr, nullptr);
    if (static_cast<size_t>(type) >= std::size(element_bytes)) wrong(i, "a typed array of 8 to 64-bit integers, f32 or f64");
    return {data, length * element_bytes[type]};
  }
  napi_is_arraybuffer(env_, args_[i], &is_buffer);
  if (!is_buffer) wrong(i, "a typed array or an ArrayBuffer");
  size_t size = 0;
  napi_get_arraybuffer_info(env_, args_[i], &data, &size);
  return {data, size};
}

void JsCall::give(Tensor t) { napi_create_double(env_, environment_.add(std::move(t)), &result_); }

void JsCall::give(std::vector<Tensor> ts) {
  napi_create_array_with_length(env_, ts.size(), &result_);
  for (size_t i = 0; i < ts.size(); i++) {
    napi_value v;
    if (ts[i].storage) napi_create_double(env_, environment_.add(std::move(ts[i])), &v);
    else napi_get_null(env_, &v);
    napi_set_element(env_, result_, static_cast<uint32_t>(i), v);
  }
}

void JsCall::give(double x) { napi_create_double(env_, x, &result_); }
void JsCall::give(bool x) { napi_get_boolean(env_, x, &result_); }
void JsCall::give(const std::string& s) { napi_create_string_utf8(env_, s.data(), s.size(), &result_); }

void JsCall::give(const std::vector<int64_t>& v) {
  napi_create_array_with_length(env_, v.size(), &result_);
  for (size_t i = 0; i < v.size(); i++) {
    napi_value x;
    napi_create_int64(env_, v[i], &x);
    napi_set_element(env_, result_, static_cast<uint32_t>(i), x);
  }
}

}  // namespace fovea::napi
