// When compiled code is taken instead of PTX: this program is linked with a table of its own in place of csrc/cuda/kernels.cc, whose cubins
// no driver takes. So a launch shows that the PTX follows a refusal, and the emulator tells whether it was offered a cubin before.
#include "cuda/kernels.h"

#include <dlfcn.h>

#include <vector>

#include "gpu.h"

namespace fovea::cuda {

namespace {

// As the build packs files (csrc/cuda/unpack.h), in one stored block.
std::string packed(const std::string& file) {
  const auto word = [](size_t value, int bytes) { return std::string(reinterpret_cast<const char*>(&value), static_cast<size_t>(bytes)); };
  return std::string("\x1f\x8b\x08\0\0\0\0\0\0\3\1", 11) + word(file.size(), 2) + word(~file.size(), 2) + file + word(0, 4) +
         word(file.size(), 4) + word(0, 8);
}

std::string probe(const std::string& name) {
  return packed(".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry " + name +
                "(.param .align 8 .b8 p[8])\n{\n.reg .b64 %rd<3>;\n"
                "ld.param.u64 %rd1, [p];\ncvta.to.global.u64 %rd2, %rd1;\n//@nothing %rd1\nst.global.u32 [%rd2], 7;\nret;\n}\n");
}

const std::string kText = probe("probe_text"), kOther = probe("probe_other"), kCode = probe("probe_code"),
                  kNoCode = packed(
                      "\x7f"
                      "ELF" +
                      std::string(4092, '\0'));

// For the device at hand in the second file, for none in the first.
EmbeddedCubin cubins[] = {{70, false, kNoCode.data()}, {0, true, kNoCode.data()}, {}};
const EmbeddedFile kFiles[] = {{"text", "probe_text\n", kText.data(), cubins + 2},
                               {"other", "probe_other\n", kOther.data(), cubins},
                               {"code", "probe_code\n", kCode.data(), cubins}};

}  // namespace

bool built_with_kernels() { return true; }

const EmbeddedFile* find_kernel(std::string_view entry) {
  for (const EmbeddedFile& file : kFiles)
    if (std::string(entry) + "\n" == file.entries) return &file;
  return nullptr;
}

}  // namespace fovea::cuda

using namespace fovea;
using namespace fovea::gpu;

namespace {

struct Nothing final : cuda::Splice {
  std::string key() const override { return "nothing"; }
  std::string expand(std::string_view, std::string_view, const std::vector<std::string_view>&) const override { return ""; }
};

// What the emulator last complained of; null on a card.
const char* complaint() {
  void* driver = dlopen(cuda::driver_state().path.c_str(), RTLD_NOW | RTLD_NOLOAD);
  auto* last = reinterpret_cast<const char* (*)()>(dlsym(driver, "foveaEmulatorLastError"));
  return last ? last() : nullptr;
}

void check_launch(Gpu& gpu, Report& report, const char* kernel, bool offered, const cuda::Splice* splice = nullptr) {
  int32_t value = 0;
  const DeviceArray out(gpu, &value, sizeof value);
  gpu.run([&](cuda::Stream& stream) { stream.launch(kernel, {1}, {1}, 0, out.data(), splice); });
  out.download(&value);
  const std::string name = std::string(kernel) + (splice ? " spliced" : "");
  report.add(name + " runs from its PTX", value == 7 ? 0 : 1, 0);
  if (const char* text = complaint()) report.add(name + " offers a cubin", (std::strstr(text, "cubins") != nullptr) == offered ? 0 : 1, 0);
}

}  // namespace

int main() {
  return run_program([] {
    Gpu gpu;
    Report report("cubin");
    check_launch(gpu, report, "probe_text", false);
    check_launch(gpu, report, "probe_other", false);
    cuda::cubins[1].capability = gpu.device().info().capability;
    const Nothing splice;
    check_launch(gpu, report, "probe_code", false, &splice);
    check_launch(gpu, report, "probe_code", true);
    return report.finish();
  });
}
