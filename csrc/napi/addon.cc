// The addon's exports: every registered op (core/op.h), and the few functions below that deal with JavaScript values themselves.
#include <cstring>
#include <future>

#include "core/allocator.h"
#include "core/error_of.h"
#include "core/isa.h"
#include "cpu/convert.h"
#include "napi/call.h"
#include "ops/copy.h"
#include "ops/transfer.h"

namespace fovea::napi {
namespace {

using Function = void (*)(JsCall&);

Dims dims_of(const std::vector<int64_t>& values) {
  Dims dims;
  for (int64_t x : values) dims.push(x);
  return dims;
}

DType dtype_of(JsCall& call, int i) {
  const int64_t code = call.integer(i);
  check(code >= 0 && code < kDTypeCount, "ERR_DTYPE", "unknown dtype code ", code);
  return static_cast<DType>(code);
}

// --- tensors in and out ---

void check_bytes(const Bytes& bytes, const Dims& shape, DType dtype) {
  const size_t size = bytes_of(shape, dtype);
  check(bytes.size == size, "ERR_SHAPE", "tensor: ", bytes.size, " bytes given, shape ", text_of(shape), " of ", name_of(dtype), " needs ",
        size);
}

// fromBytes(bytes, dtype, shape, device = cpu): a copy of the caller's memory.
void from_bytes(JsCall& call) {
  Bytes bytes = call.bytes(0);
  DType dtype = dtype_of(call, 1);
  Dims shape = dims_of(call.integers(2));
  check_bytes(bytes, shape, dtype);
  Tensor t = Tensor::empty(shape, dtype, true);
  if (bytes.size) std::memcpy(t.data(), bytes.data, bytes.size);
  const Device device = call.is_null(3) ? Device::cpu() : Device::from_code(call.integer(3));
  call.give(device.is_cpu() ? std::move(t) : upload(t, device));
}

// What keeps a JavaScript buffer alive until the stream is done with it; let go on the environment's own thread.
struct Borrowed {
  std::shared_ptr<Completions> completions;
  Pending* pending;
};

// borrow(bytes, dtype, shape): the tensor uses the caller's memory.
void borrow(JsCall& call) {
  Bytes bytes = call.bytes(0);
  DType dtype = dtype_of(call, 1);
  Dims shape = dims_of(call.integers(2));
  check_bytes(bytes, shape, dtype);
  Environment& environment = call.environment();
  Tensor t;
  t.dtype = dtype;
  t.shape = shape;
  t.strides = contiguous_strides(shape);
  auto release = [](void* ctx) {
    auto* b = static_cast<Borrowed*>(ctx);
    b->completions->settle(b->pending, nullptr);
    delete b;
  };
  auto* borrowed = new Borrowed{environment.completions(), environment.hold(call.value(0))};
  t.storage = StorageOwner(Storage::foreign(const_cast<void*>(bytes.data), bytes.size, release, borrowed, Storage::Memory::Borrowed));
  call.give(std::move(t));
}

cpu::CopyParams read_params(const Tensor& t, void* target) {
  cpu::CopyParams p{};
  p.src = t.data();
  p.src_dtype = p.dst_dtype = t.dtype;
  p.dst = target;
  p.rank = t.rank();
  Dims strides = contiguous_strides(t.shape);
  for (int i = 0; i < p.rank; i++) {
    p.shape[i] = t.shape[i];
    p.src_strides[i] = t.strides[i];
    p.dst_strides[i] = strides[i];
  }
  return p;
}

napi_value make_buffer(JsCall& call, const Tensor& t, void** data) {
  napi_value buffer;
  const size_t size = bytes_of(t.shape, t.dtype);
  check(napi_create_arraybuffer(call.env(), size, data, &buffer) == napi_ok, "ERR_OOM", "out of memory: no ArrayBuffer of ", size,
        " bytes");
  return buffer;
}

napi_value read_from_device(JsCall& call, const Tensor& t, napi_value buffer, void* data) {
  const Tensor dense = contiguous(t);
  napi_value promise;
  Pending* pending = call.environment().make_promise(buffer, &promise);
  read_device(dense, data, [pending, completions = call.environment().completions()](std::shared_ptr<const Error> error) {
    completions->settle(pending, std::move(error));
  });
  return promise;
}

// read(handle): a promise of an ArrayBuffer with the elements in row-major order.
void read(JsCall& call) {
  const Tensor& t = call.tensor(0);
  void* data = nullptr;
  napi_value buffer = make_buffer(call, t, &data), promise;
  if (!t.device().is_cpu()) return call.give(read_from_device(call, t, buffer, data));
  Pending* pending = call.environment().make_promise(buffer, &promise);
  Storage* storage = t.storage.get();
  Stream::cpu().post("read", Lane::current(Device::cpu()), {storage}, {},
                     [p = read_params(t, data), storage, pending, completions = call.environment().completions()](const TaskContext& ctx) {
                       std::shared_ptr<const Error> error = storage->poison() ? storage->shared_poison() : nullptr;
                       if (!error) error = error_of("read", [&] { run_copy(ctx, p); });
                       completions->settle(pending, error);
                     });
  call.give(promise);
}

// readSync(handle): the same, waiting for it.
void read_sync(JsCall& call) {
  const Tensor& t = call.tensor(0);
  void* data = nullptr;
  napi_value buffer = make_buffer(call, t, &data);
  if (!t.device().is_cpu()) {
    std::promise<std::shared_ptr<const Error>> arrived;
    read_device(t, data, [&arrived](std::shared_ptr<const Error> error) { arrived.set_value(std::move(error)); });
    if (auto error = arrived.get_future().get()) throw Error(*error);
    return call.give(buffer);
  }
  cpu::CopyParams p = read_params(t, data);
  uint64_t position = Stream::cpu().launch("read", {t.storage.get()}, {}, [p](const TaskContext& ctx) { run_copy(ctx, p); });
  Stream::cpu().wait(position);
  if (const Error* error = t.storage->poison()) throw Error(*error);
  call.give(buffer);
}

// Calls done(error) once every device has run all that is queued now; error is the first that nobody else was told.
void when_all_done(WhenDone done) {
  const auto backends = opened_backends();
  const auto one = after_all(backends.size() + 1, std::move(done));
  for (DeviceBackend* backend : backends) backend->when_done(one);
  Stream::cpu().post("synchronize", [one](const TaskContext&) { one(Stream::cpu().take_errors()); });
}

// synchronize(): a promise that settles when everything queued so far has run.
void synchronize(JsCall& call) {
  napi_value promise;
  Pending* pending = call.environment().make_promise(nullptr, &promise);
  when_all_done([pending, completions = call.environment().completions()](std::shared_ptr<const Error> error) {
    completions->settle(pending, std::move(error));
  });
  call.give(promise);
}

void synchronize_sync(JsCall&) {
  std::promise<std::shared_ptr<const Error>> arrived;
  when_all_done([&arrived](std::shared_ptr<const Error> error) { arrived.set_value(std::move(error)); });
  if (auto error = arrived.get_future().get()) throw Error(*error);
}

// --- views ---

void shape(JsCall& call) {
  const Tensor& t = call.tensor(0);
  call.give(std::vector<int64_t>(t.shape.begin(), t.shape.end()));
}

void strides(JsCall& call) {
  const Tensor& t = call.tensor(0);
  call.give(std::vector<int64_t>(t.strides.begin(), t.strides.end()));
}

void dtype(JsCall& call) { call.give(static_cast<double>(call.tensor(0).dtype)); }
void offset(JsCall& call) { call.give(static_cast<double>(call.tensor(0).offset)); }
void version(JsCall& call) { call.give(static_cast<double>(call.tensor(0).storage->version())); }
void same_storage(JsCall& call) { call.give(call.tensor(0).storage.get() == call.tensor(1).storage.get()); }

// view(handle, shape, strides, offset): checked against the storage, whatever lib/ made of it.
void view(JsCall& call) {
  const Tensor& t = call.tensor(0);
  Dims new_shape = dims_of(call.integers(1)), new_strides = dims_of(call.integers(2));
  int64_t new_offset = call.integer(3);
  check(new_shape.rank == new_strides.rank, "ERR_INTERNAL", "view: rank of shape and strides differ");
  int64_t low = new_offset, high = new_offset;
  bool inside = true;
  for (int i = 0; i < new_shape.rank && bytes_of(new_shape, t.dtype) > 0; i++) {
    int64_t reach;
    inside &= !__builtin_mul_overflow(new_shape[i] - 1, new_strides[i], &reach);
    int64_t& end = reach < 0 ? low : high;
    inside &= !__builtin_add_overflow(end, reach, &end);
  }
  int64_t elements = static_cast<int64_t>(t.storage->bytes() / size_of(t.dtype));
  check(bytes_of(new_shape, t.dtype) == 0 || (inside && low >= 0 && high < elements), "ERR_SHAPE", "view: shape ", text_of(new_shape),
        ", strides ", text_of(new_strides), ", offset ", new_offset, " reaches outside the storage of ", elements, " elements");
  call.give(t.view(new_shape, new_strides, new_offset));
}

// --- memory, threads, environment ---

void release(JsCall& call) { call.environment().release(call.number(0)); }

void memory(JsCall& call) {
  MemoryStats s = Allocator::instance().stats();
  call.give(std::vector<int64_t>{s.live_bytes, s.live_blocks, s.cached_bytes, s.peak_live_bytes, s.limit_bytes,
                                 ThreadPool::instance().scratch_bytes(), call.environment().handle_count()});
}

// deviceMemory(): for each CUDA device in use its ordinal and the fields of DeviceMemory, one after the other.
void device_memory(JsCall& call) {
  std::vector<int64_t> out;
  visit_opened([&](DeviceBackend& backend) {
    const DeviceMemory m = backend.memory();
    for (int64_t x : {int64_t{backend.device().ordinal}, m.live_bytes, m.live_blocks, m.peak_live_bytes, m.cached_bytes, m.total_bytes})
      out.push_back(x);
  });
  call.give(out);
}

void trim(JsCall&) {
  Allocator::instance().trim();
  visit_opened([](DeviceBackend& backend) { backend.trim(); });
}

void reset_peak(JsCall&) {
  Allocator::instance().reset_peak();
  visit_opened([](DeviceBackend& backend) { backend.reset_peak(); });
}
void set_memory_limit(JsCall& call) { Allocator::instance().set_limit(call.integer(0)); }
void set_threads(JsCall& call) { ThreadPool::instance().set_threads(static_cast<int>(call.integer(0))); }
void threads(JsCall& call) { call.give(static_cast<double>(ThreadPool::instance().threads())); }

void isa(JsCall& call) { call.give(std::string(name_of(current_isa()))); }
void best(JsCall& call) { call.give(std::string(name_of(best_isa()))); }

void set_isa_by_name(JsCall& call) {
  std::string name = call.text(0);
  for (Isa level : kAllIsas)
    if (name == name_of(level)) {
      Stream::cpu().synchronize();
      return set_isa(level);
    }
  fail("ERR_ARGUMENT", "CPU level: got '", name, "', expected baseline, avx2, avx512, avx512bf16 or amx");
}

// buildVersion(): the version in package.json that this addon was built from.
void build_version(JsCall& call) { call.give(std::string(FOVEA_VERSION)); }

void set_error_class(JsCall& call) { call.environment().set_error_class(call.value(0)); }

void begin_scope(JsCall& call) { call.environment().begin_scope(); }
void end_scope(JsCall& call) { call.environment().end_scope(); }
void begin_abortable(JsCall& call) { call.give(call.environment().begin_abortable()); }
void end_abortable(JsCall& call) { call.environment().end_abortable(); }
void abort_call(JsCall& call) { call.environment().abort(call.number(0), call.value(1)); }
void forget_abortable(JsCall& call) { call.environment().forget_abortable(call.number(0)); }

void export_tensor(JsCall& call) { call.give(call.environment().export_tensor(call.number(0))); }
void import_tensor(JsCall& call) { call.give(call.environment().take_exported(call.number(0))); }

struct Export {
  const char* name;
  Function function;
};

constexpr Export kExports[] = {
    {"fromBytes", from_bytes},
    {"borrow", borrow},
    {"read", read},
    {"readSync", read_sync},
    {"synchronize", synchronize},
    {"synchronizeSync", synchronize_sync},
    {"shape", shape},
    {"strides", strides},
    {"dtype", dtype},
    {"offset", offset},
    {"version", version},
    {"sameStorage", same_storage},
    {"view", view},
    {"release", release},
    {"memory", memory},
    {"deviceMemory", device_memory},
    {"trim", trim},
    {"resetPeak", reset_peak},
    {"setMemoryLimit", set_memory_limit},
    {"setThreads", set_threads},
    {"threads", threads},
    {"isa", isa},
    {"bestIsa", best},
    {"setIsa", set_isa_by_name},
    {"buildVersion", build_version},
    {"setErrorClass", set_error_class},
    {"beginScope", begin_scope},
    {"endScope", end_scope},
    {"beginAbortable", begin_abortable},
    {"endAbortable", end_abortable},
    {"abort", abort_call},
    {"forgetAbortable", forget_abortable},
    {"exportTensor", export_tensor},
    {"importTensor", import_tensor},
    {"streamOpen", stream_open},
    {"streamDefault", stream_default},
    {"streamClose", stream_close},
    {"streamEnter", stream_enter},
    {"streamLeave", stream_leave},
    {"streamRecord", stream_record},
    {"streamWait", stream_wait},
    {"streamDone", stream_done},
    {"streamDoneSync", stream_done_sync},
    {"eventDone", event_done},
    {"eventDoneSync", event_done_sync},
    {"eventRelease", event_release},
};

napi_value call_export(napi_env env, napi_callback_info info) {
  return guarded(env, info, [](JsCall& call) {
    const auto& entry = *static_cast<const Export*>(call.data());
    call.is_of(entry.name);
    entry.function(call);
  });
}

napi_value call_op(napi_env env, napi_callback_info info) {
  return guarded(env, info, [](JsCall& call) {
    const auto& entry = *static_cast<const OpEntry*>(call.data());
    call.is_of(entry.name);
    entry.invoke(call);
  });
}

void define(napi_env env, napi_value exports, const char* name, napi_callback callback, const void* data) {
  napi_value function;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, const_cast<void*>(data), &function);
  napi_set_named_property(env, exports, name, function);
}

}  // namespace

static napi_value init(napi_env env, napi_value exports) {
  napi_set_instance_data(
      env, new Environment(env), [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); }, nullptr);
  for (const Export& e : kExports) define(env, exports, e.name, call_export, &e);
  for (const OpEntry& op : op_registry()) define(env, exports, op.name, call_op, &op);
  return exports;
}

}  // namespace fovea::napi

NAPI_MODULE_INIT() { return fovea::napi::init(env, exports); }
