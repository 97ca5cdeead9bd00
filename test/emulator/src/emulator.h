// What the emulator exports beside the driver API.
#pragma once

#pragma GCC visibility push(default)
extern "C" {

// The last error in full: kernel, PTX line and text, block, thread, what was wrong. Empty when there was none. Valid until the next call.
// cuGetErrorString gives the same text for the code that a kernel's error has.
const char* foveaEmulatorLastError();

// Counters of all kernels that ran while FOVEA_EMULATOR_REPORT or FOVEA_EMULATOR_PROFILE was set, as JSON. Valid until the next call.
const char* foveaEmulatorReport();
void foveaEmulatorResetReport();

// Makes every later call on the device fail, as after a hardware fault.
void foveaEmulatorLoseDevice(int device);

// Live allocations of device memory, those of modules not counted.
unsigned long long foveaEmulatorLiveAllocations(int device);
}
#pragma GCC visibility pop
