// Host threads that run the blocks of a grid.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fovea::emulator {

class Workers {
 public:
  static Workers& instance();
  // Calls `work` on `copies` threads, the caller among them, and returns when all are done. Several callers may come at once.
  void run(int copies, const std::function<void()>& work);

 private:
  struct Job {
    const std::function<void()>* work;
    int left;     // copies nobody has taken yet
    int running;  // copies taken and not finished
  };
  void loop();
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<Job*> jobs_;
  int threads_ = 0;
};

}  // namespace fovea::emulator
