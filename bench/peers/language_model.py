"""The training step of bench/language_model.ts in PyTorch: same shapes, same operations, prints one JSON line.

    python3 bench/peers/language_model.py THREADS
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, LAYERS, HEADS, LENGTH, BATCH = 256, 4, 4, 512, 8
HEAD_DIM = WIDTH // HEADS


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotary_table():
    frequencies = 10000.0 ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
    angles = torch.outer(torch.arange(LENGTH).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(), RMSNorm()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def attention(self, x, cos, sin, hidden):
        q, k, v = self.qkv(x).view(BATCH, LENGTH, 3, HEADS, HEAD_DIM).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if hasattr(F, "scaled_dot_product_attention"):
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-1, -2)) / math.sqrt(HEAD_DIM)
            out = scores.masked_fill(hidden, -math.inf).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH))

    def forward(self, x, cos, sin, hidden):
        x = x + self.attention(self.norm1(x), cos, sin, hidden)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class ByteModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(256, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = RMSNorm()
        self.head = nn.Linear(WIDTH, 256, bias=False)

    def forward(self, ids, cos, sin, hidden):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, cos, sin, hidden)
        return self.head(self.norm(x))


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(1)
    model = ByteModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(0, 256, (BATCH, LENGTH))
    targets = torch.randint(0, 256, (BATCH * LENGTH,))
    hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    cos, sin = rotary_table()

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(ids, cos, sin, hidden).view(-1, 256), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    step()
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    print(json.dumps({"torch": torch.__version__, "ms": best * 1000, "tokensPerSecond": BATCH * LENGTH / best}))


if __name__ == "__main__":
    main()
