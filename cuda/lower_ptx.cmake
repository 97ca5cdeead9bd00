# Lowers the version in a PTX file's header to the oldest that knows the instructions used, since nvcc writes its own, which older drivers
# refuse, and lists the file's entry points beside it. CI assembles the result, so a missing row of the table shows.
#   cmake -DPTX=build/ptx/fill.ptx -P cuda/lower_ptx.cmake     also writes build/ptx/fill.entries, one name a line

# What needs a newer PTX than the 7.0 of sm_80, newest first; sm_90a code needs 8.0 as it is.
set(versions 8.0 7.8 7.7 7.4 7.1)
set(needs_8.0 "\\.target sm_90a|wgmma|cp\\.async\\.bulk|\\.multicast|mbarrier\\.[a-z0-9_.]*tx")
set(needs_7.8
    "[\t ](add|sub|mul)(\\.[a-z]+)*\\.bf16|cvt\\.[a-z0-9.]*\\.bf16\\.(bf16|f16)|movmatrix|(ex2|tanh)\\.approx[a-z0-9.]*\\.bf16")
set(needs_7.7 "cvta\\.param|\\.grid_constant")
set(needs_7.4 "(cp\\.async|[\t ]ld)\\.[a-zA-Z0-9_.:]*L2::|createpolicy")
set(needs_7.1 "mma\\.sp")

file(READ ${PTX} text)
# A hint about loads wider than what is used of them, and an error before PTX 8.3.
string(REGEX REPLACE "\n[\t ]*\\.pragma \"used_bytes_mask[^\n]*" "" text "${text}")
set(version 7.0)
foreach(candidate ${versions})
  if(text MATCHES "${needs_${candidate}}")
    set(version ${candidate})
    break()
  endif()
endforeach()
string(REGEX REPLACE "\n\\.version [0-9.]+" "\n.version ${version}" text "${text}")
file(WRITE ${PTX} "${text}")

string(REGEX MATCHALL "\n\\.visible \\.entry [A-Za-z0-9_]+" entries "${text}")
string(REGEX REPLACE ";?\n\\.visible \\.entry ([A-Za-z0-9_]+)" "\\1\n" entries "${entries}")
string(REGEX REPLACE "\\.ptx$" ".entries" list ${PTX})
file(WRITE ${list} "${entries}")
