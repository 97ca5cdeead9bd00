// Every file of the PTX folder loads: no instruction in it is unknown.
#include <filesystem>

#include "harness.h"

using namespace harness;

TEST("every file loads") {
  int files = 0;
  for (const auto& file : std::filesystem::directory_iterator(ptx_folder)) {
    if (file.path().extension() != ".ptx") continue;
    Module::compiled(file.path().stem().string());
    files++;
  }
  check(files > 0, "no PTX in " + ptx_folder);
}

int main(int argc, char** argv) {
  setenv("FOVEA_EMULATOR_CAPABILITY", "90", 1);
  return main_of_tests(argc, argv);
}
