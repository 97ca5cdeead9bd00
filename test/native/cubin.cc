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
  constexpr EmbeddedCubin cubins[] = {{80, false, "a"}, {89, false, "b"}, {86, false, "c"}, {90, true, "d"}, {}};
  const EmbeddedFile file{"all", "", "", cubins}, none{"none", "", "", cubins + 4};
  expect(file, 75, 0);
  expect(file, 80, 80);
  expect(file, 86, 86);
  expect(file, 87, 86);
  expect(file, 89, 89);
  expect(file, 90, 90, true);
  expect(file, 100, 0);
  expect(file, 120, 0);
  expect(none, 80, 0);
  constexpr EmbeddedCubin hopper[] = {{90, true, "a"}, {90, false, "b"}, {}};
  expect({"hopper", "", "", hopper}, 91, 90);
  std::printf(failures ? "%d failed\n" : "cubins: ok\n", failures);
  return failures != 0;
}
