"""Products of bench/matmul.ts in PyTorch: f32 by its BLAS (OpenBLAS in Debian's), bf16 by oneDNN. Prints one JSON line, GF/s.

    python3 bench/peers/matmul.py SIZE DTYPE THREADS
"""

import json
import math
import sys
import time

import torch

size, dtype, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
a, b = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
best = math.inf
end = time.perf_counter() + 0.5
while time.perf_counter() < end:
    start = time.perf_counter()
    torch.mm(a, b)
    best = min(best, time.perf_counter() - start)
print(json.dumps({"torch": torch.__version__, "gflops": 2 * size**3 / best / 1e9}))
