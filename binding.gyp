{
  # CPU-only build for machines with node-gyp but no CMake; CMakeLists.txt is the real build. Both glob the same folders.
  "variables": {
    "sources_in": "node -e \"const fs=require('fs');console.log(process.argv.slice(1).flatMap(d=>fs.readdirSync(d).filter(f=>f.endsWith('.cc')).map(f=>d+'/'+f)).join('\\n'))\"",
    "common_flags": ["-std=c++20", "-O3", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-Wno-unknown-pragmas", "-Wno-psabi"],
    "kernel_flags": ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-unused-function"],
    "avx512_flags": ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"]
  },
  "target_defaults": {
    "include_dirs": ["csrc"],
    "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-exceptions", "-fno-rtti"],
    "cflags_cc": ["<@(common_flags)"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
      "MACOSX_DEPLOYMENT_TARGET": "11.0",
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
      "OTHER_CPLUSPLUSFLAGS": ["<@(common_flags)"]
    }
  },
  "targets": [
    {
      "target_name": "fovea_cpu_baseline",
      "type": "static_library",
      "sources": ["<!@(<(sources_in) csrc/cpu)"],
      "defines": ["FOVEA_ISA=0"],
      "cflags_cc": ["<@(kernel_flags)"]
    },
    {
      "target_name": "fovea",
      "sources": ["<!@(<(sources_in) csrc/napi csrc/core csrc/ops csrc/cuda)"],
      "dependencies": ["fovea_cpu_baseline"],
      "defines": ["NAPI_VERSION=8", "NODE_GYP_MODULE_NAME=fovea", "FOVEA_VERSION=\"<!(node -p \"require('./package.json').version\")\""],
      "conditions": [
        ["OS=='linux'", {"ldflags": ["-Wl,--version-script=<(module_root_dir)/csrc/napi/exports.map", "-Wl,-z,now"]}],
        ["target_arch=='x64'", {"dependencies": ["fovea_cpu_avx2", "fovea_cpu_avx512", "fovea_cpu_avx512bf16"]}]
      ]
    }
  ],
  "conditions": [
    ["target_arch=='x64'", {
      "targets": [
        {
          "target_name": "fovea_cpu_avx2",
          "type": "static_library",
          "sources": ["<!@(<(sources_in) csrc/cpu)"],
          "defines": ["FOVEA_ISA=1"],
          "cflags_cc": ["<@(kernel_flags)", "-mavx2", "-mfma", "-mf16c"]
        },
        {
          "target_name": "fovea_cpu_avx512",
          "type": "static_library",
          "sources": ["<!@(<(sources_in) csrc/cpu csrc/cpu/avx512)"],
          "defines": ["FOVEA_ISA=2"],
          "cflags_cc": ["<@(kernel_flags)", "<@(avx512_flags)"]
        },
        {
          "target_name": "fovea_cpu_avx512bf16",
          "type": "static_library",
          "sources": ["<!@(<(sources_in) csrc/cpu/avx512bf16)"],
          "defines": ["FOVEA_ISA=3"],
          "cflags_cc": ["<@(kernel_flags)", "<@(avx512_flags)", "-mavx512bf16"]
        }
      ]
    }]
  ]
}
