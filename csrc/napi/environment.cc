#include "napi/environment.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace fovea::napi {
namespace {

constexpr uint32_t kIndexBits = 26;
constexpr double kIndexSpan = 1u << kIndexBits;
// Handles are whole numbers below 2^53, so a slot retires after as many tensors.
constexpr uint32_t kGenerations = 1u << (53 - kIndexBits);
constexpr int64_t kReportStepBytes = int64_t{1} << 20;

void expect(napi_status status, const char* what) {
  if (status != napi_ok) fail("ERR_INTERNAL", "Node-API call failed: ", what);
}

// Tensors on their way between environments.
struct Exports {
  std::mutex mutex;
  std::unordered_map<uint64_t, Tensor> tensors;
  uint64_t next = 1;
  static Exports& instance() {
    static Exports* exports = new Exports;
    return *exports;
  }
};

// What errors of an aborted call are made with, held until the last of them is gone.
class ErrorOptions {
 public:
  ErrorOptions(std::shared_ptr<Completions> completions, Pending* options) : completions_(std::move(completions)), options_(options) {}
  ~ErrorOptions() { completions_->settle(options_, nullptr); }
  ErrorOptions(const ErrorOptions&) = delete;
  ErrorOptions& operator=(const ErrorOptions&) = delete;
  bool is_of(const std::shared_ptr<Completions>& completions) const { return completions_ == completions; }
  napi_ref reference() const { return options_->keep; }

 private:
  const std::shared_ptr<Completions> completions_;
  Pending* const options_;
};

}  // namespace

void Completions::settle(Pending* pending, std::shared_ptr<const Error> error) {
  std::lock_guard lock(mutex_);
  if (!open_) {
    delete pending;
    return;
  }
  done_.push_back({pending, std::move(error)});
  if (done_.size() == 1) napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

Environment& Environment::of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Environment*>(data);
}

Environment::Environment(napi_env env) : env_(env), completions_(std::make_shared<Completions>()), own_token_(std::make_shared<Cancel>()) {
  napi_value name;
  expect(napi_create_string_utf8(env, "fovea completions", NAPI_AUTO_LENGTH, &name), "create_string");
  expect(napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, on_completions, &completions_->wake_),
         "create_threadsafe_function");
  napi_unref_threadsafe_function(env, completions_->wake_);
  napi_add_env_cleanup_hook(env, close, this);
  Stream::set_cancel_token(own_token_);
}

Environment::~Environment() {
  Stream::cpu().synchronize();
  drain_devices();
  for (Slot& slot : slots_)
    if (slot.tensor.storage) slot.tensor.storage->drop_handle(this);
}

void Environment::close(void* data) {
  auto& self = *static_cast<Environment*>(data);
  // Queued work of a closing environment is dropped, unless other threads have tensors of it, or it those of others.
  if (!self.shares_) {
    self.own_token_->stop(nullptr);
    for (Abortable& one : self.abortables_) one.token->stop(nullptr);
  }
  Stream::set_cancel_token(nullptr);
  std::vector<Completions::Done> unheard;  // freed without the lock, which the end of an error may take
  {
    std::lock_guard lock(self.completions_->mutex_);
    self.completions_->open_ = false;
    unheard.swap(self.completions_->done_);
  }
  for (Completions::Done& d : unheard) delete d.pending;
  unheard.clear();
  Stream::cpu().synchronize();
  drain_devices();
}

double Environment::add(Tensor tensor) {
  uint32_t index;
  if (free_.empty()) {
    index = static_cast<uint32_t>(slots_.size());
    check(index < kIndexSpan, "ERR_OOM", "too many live tensors: ", live_, "; dispose those you no longer need (`using`, scope())");
    slots_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Slot& slot = slots_[index];
  if (tensor.storage->add_handle(this)) live_bytes_ += static_cast<int64_t>(tensor.storage->bytes());
  slot.tensor = std::move(tensor);
  live_++;
  return slot.generation * kIndexSpan + index;
}

const Tensor& Environment::get(double handle) const {
  double generation = std::floor(handle / kIndexSpan);
  double index = handle - generation * kIndexSpan;
  check(index >= 0 && index < static_cast<double>(slots_.size()), "ERR_ARGUMENT", "not a tensor handle of this thread: ", handle);
  const Slot& slot = slots_[static_cast<size_t>(index)];
  check(slot.generation == generation && slot.tensor.storage, "ERR_DISPOSED",
        "the tensor was disposed (by dispose(), `using`, or the end of its scope()); keep it with keep() or return it from the scope");
  return slot.tensor;
}

void Environment::release(double handle) {
  double generation = std::floor(handle / kIndexSpan);
  size_t index = static_cast<size_t>(handle - generation * kIndexSpan);
  if (index >= slots_.size()) return;
  Slot& slot = slots_[index];
  if (slot.generation != generation || !slot.tensor.storage) return;
  if (slot.tensor.storage->drop_handle(this)) live_bytes_ -= static_cast<int64_t>(slot.tensor.storage->bytes());
  slot.tensor = Tensor();
  if (++slot.generation < kGenerations) free_.push_back(static_cast<uint32_t>(index));
  live_--;
}

void Environment::report_memory() {
  if (scopes_ > 0) return;
  int64_t change = live_bytes_ - reported_bytes_;
  if (change < kReportStepBytes && change > -kReportStepBytes) return;
  int64_t total;
  napi_adjust_external_memory(env_, change, &total);
  reported_bytes_ = live_bytes_;
}

Pending* Environment::make_promise(napi_value keep, napi_value* promise) {
  auto pending = std::make_unique<Pending>();
  expect(napi_create_promise(env_, &pending->deferred, promise), "create_promise");
  if (keep) expect(napi_create_reference(env_, keep, 1, &pending->keep), "create_reference");
  if (pending_++ == 0) napi_ref_threadsafe_function(env_, completions_->wake_);
  return pending.release();
}

Pending* Environment::hold(napi_value keep) {
  auto pending = std::make_unique<Pending>();
  expect(napi_create_reference(env_, keep, 1, &pending->keep), "create_reference");
  return pending.release();
}

void Environment::on_completions(napi_env env, napi_value, void* context, void*) {
  if (env) static_cast<Environment*>(context)->drain();
}

void Environment::drain() {
  std::vector<Completions::Done> done;
  {
    std::lock_guard lock(completions_->mutex_);
    done.swap(completions_->done_);
  }
  for (Completions::Done& d : done) {
    napi_value value = nullptr;
    if (d.pending->keep) {
      napi_get_reference_value(env_, d.pending->keep, &value);
      napi_delete_reference(env_, d.pending->keep);
    }
    if (!value) napi_get_undefined(env_, &value);
    const napi_deferred deferred = d.pending->deferred;
    delete d.pending;
    if (!deferred) continue;
    if (d.error) napi_reject_deferred(env_, deferred, make_error(*d.error));
    else napi_resolve_deferred(env_, deferred, value);
    if (--pending_ == 0) napi_unref_threadsafe_function(env_, completions_->wake_);
  }
}

void Environment::set_error_class(napi_value constructor) {
  if (error_class_) napi_delete_reference(env_, error_class_);
  napi_create_reference(env_, constructor, 1, &error_class_);
}

napi_value Environment::make_error(const Error& e) {
  napi_value args[3], constructor = nullptr, error;
  napi_create_string_utf8(env_, e.code(), NAPI_AUTO_LENGTH, &args[0]);
  napi_create_string_utf8(env_, e.what(), NAPI_AUTO_LENGTH, &args[1]);
  const auto* options = static_cast<const ErrorOptions*>(e.cause().get());
  const bool known = options && options->is_of(completions_) && napi_get_reference_value(env_, options->reference(), &args[2]) == napi_ok;
  if (error_class_) napi_get_reference_value(env_, error_class_, &constructor);
  if (!constructor || napi_new_instance(env_, constructor, known ? 3 : 2, args, &error) != napi_ok)
    napi_create_error(env_, args[0], args[1], &error);
  return error;
}

Environment::Abortable* Environment::current_abortable() {
  for (Abortable& one : abortables_)
    if (one.id == current_abort_id_) return &one;
  return nullptr;
}

double Environment::begin_abortable() {
  const Abortable* outer = current_abortable();
  const CancelToken token = std::make_shared<Cancel>();
  if (outer && outer->token->stopped().load(std::memory_order_relaxed)) token->stop(outer->token->cause());
  abortables_.push_back({next_abort_id_++, current_abort_id_, token});
  current_abort_id_ = abortables_.back().id;
  Stream::set_cancel_token(abortables_.back().token);
  return current_abort_id_;
}

void Environment::end_abortable() {
  if (const Abortable* ended = current_abortable()) current_abort_id_ = ended->outer;
  const Abortable* outer = current_abortable();
  Stream::set_cancel_token(outer ? outer->token : own_token_);
}

void Environment::abort(double id, napi_value options) {
  const auto cause = std::make_shared<const ErrorOptions>(completions_, hold(options));
  std::vector<double> stopped{id};
  for (Abortable& one : abortables_) {
    const bool inside = std::find(stopped.begin(), stopped.end(), one.outer) != stopped.end();
    if (inside) stopped.push_back(one.id);
    if (inside || one.id == id) one.token->stop(cause);
  }
}

void Environment::forget_abortable(double id) {
  std::erase_if(abortables_, [id](const Abortable& one) { return one.id == id; });
}

double Environment::export_tensor(double handle) {
  Tensor tensor = get(handle);
  check(!tensor.storage->borrowed(), "ERR_UNSUPPORTED",
        "share(): the tensor uses the memory of a TypedArray, which goes with its thread; share one made without { copy: false }");
  shares_ = true;
  Exports& exports = Exports::instance();
  std::lock_guard lock(exports.mutex);
  exports.tensors.emplace(exports.next, std::move(tensor));
  return static_cast<double>(exports.next++);
}

Tensor Environment::take_exported(double id) {
  Exports& exports = Exports::instance();
  std::lock_guard lock(exports.mutex);
  auto node = exports.tensors.extract(static_cast<uint64_t>(id));
  check(!node.empty(), "ERR_ARGUMENT", "no shared tensor with id ", static_cast<int64_t>(id),
        ": a shared tensor can be received once; call share() again for another receiver");
  shares_ = true;
  return std::move(node.mapped());
}

}  // namespace fovea::napi
