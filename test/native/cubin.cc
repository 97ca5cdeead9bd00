// Which compiled code a device gets, of the architectures that a build has.
#include <cstdio>

#include "cuda/kernels.h"

using namespace fovea::cuda;

namespace {

int failures = 0;

void expect(const EmbeddedFile& file, int capability, int wanted, bool this_one_only = false) {
  const EmbeddedCubin* found = cubin_for(file, capability);
  const int got = found ? found->capability : 0;
  if (got == wanted && (!found || found->this_one_only == this_one_only)) return;
  std::printf("capability %d: got the cubin for %d, expected %d\n", capability, got, wanted);
  failures++;
}

}  // namespace

int main() {
  constexpr EmbeddedCubin cubins[] = {
      {80, false, nullptr, 0, 0}, {89, false, nullptr, 0, 0}, {86, false, nullptr, 0, 0}, {90, true, nullptr, 0, 0}};
  const EmbeddedFile file{"all", "", nullptr, 0, 0, cubins, 4}, none{"none", "", nullptr, 0, 0, nullptr, 0};
  expect(file, 75, 0);
  expect(file, 80, 80);
  expect(file, 86, 86);
  expect(file, 87, 86);
  expect(file, 89, 89);
  expect(file, 90, 90, true);
  expect(file, 100, 0);
  expect(file, 120, 0);
  expect(none, 80, 0);
  constexpr EmbeddedCubin hopper[] = {{90, true, nullptr, 0, 0}, {90, false, nullptr, 0, 0}};
  expect({"hopper", "", nullptr, 0, 0, hopper, 2}, 91, 90);
  std::printf(failures ? "%d failed\n" : "cubins: ok\n", failures);
  return failures != 0;
}
