// What happens on the host when a device gets to a point of a lane: a thread waits for recorded events in order and calls back.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "cuda/driver_api.h"

namespace fovea::cuda {

class Device;
class Lane;

class Events {
 public:
  using Action = std::function<void(std::shared_ptr<const Error>)>;

  Events(Device& device, Lane& lane) : device_(device), lane_(lane) {}
  ~Events();
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  // The thread keeps its lane alive until stop() and the last action.
  void start(std::shared_ptr<Lane> lane);
  void stop();

  // On the queue's thread: calls action(error) when all work issued so far has run. An `error` given here is passed on in order.
  void after_issued(Action action, std::shared_ptr<const Error> error = nullptr);

  // A recorded event, for another stream to wait for; give it back when that stream has been told to.
  CUevent record();
  void give_back(CUevent event);

 private:
  struct Item {
    CUevent event;  // null: nothing to wait for
    uint64_t launches;
    std::shared_ptr<const Error> error;
    Action action;
  };
  CUevent take();
  void loop();

  Device& device_;
  Lane& lane_;
  bool stopped_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  std::vector<CUevent> free_;
};

}  // namespace fovea::cuda
