"""The cases of cases.txt in PyTorch on the same card: SDPA by each of its backends, flex_attention, create_block_mask, torch.matmul and copies;
neighborhood attention by flex_attention and, where it is installed, by NATTEN.

    python3 peers.py CASES [--warmup=0.3] [--seconds=1] [--shrink=1] [--device=cuda]

Prints one JSON line per case and peer, timed as bench.cc does: the median of groups of calls between two CUDA events. A peer that cannot run a
case (an older PyTorch, no memory, a shape it refuses) gives a line with the reason instead. --device=cpu and --shrink try the script anywhere.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

WINDOW = 1024
DOCUMENT_LENGTHS = (512, 1536, 3072, 1024, 2048)
GROUP_SECONDS = 0.01


class Skip(Exception):
    """A peer that cannot run a case, with the reason."""


class Timer:
    def __init__(self, device, warmup, seconds):
        self.device, self.warmup, self.seconds = device, warmup, seconds

    def group(self, work, count):
        """Seconds that `count` calls of `work` take."""
        if self.device == "cpu":
            start = time.perf_counter()
            for _ in range(count):
                work()
            return time.perf_counter() - start
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(count):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def time(self, work):
        """The median and the least milliseconds of a call, and the number of groups."""
        one = self.group(work, 1)  # the first compiles
        spent = 0.0
        while spent < self.warmup:
            one = max(self.group(work, 1), 1e-6)
            spent += one
        count = max(1, int(GROUP_SECONDS / max(one, 1e-6)))
        times, spent = [], 0.0
        while len(times) < 5 or spent < self.seconds:
            times.append(self.group(work, count) / count)
            spent += max(times[-1] * count, 1e-6)
        return {"ms": 1e3 * statistics.median(times), "least_ms": 1e3 * min(times), "groups": len(times)}


def documents_of(length, device):
    """The document of each token."""
    ids, document = [], 0
    while len(ids) < length:
        ids += [document] * DOCUMENT_LENGTHS[document % len(DOCUMENT_LENGTHS)]
        document += 1
    return torch.tensor(ids[:length], dtype=torch.int32, device=device)


def mask_function(mask, length, device):
    """What flex_attention takes for a mask of cases.txt, None for dense."""
    if mask == "causal":
        return lambda b, h, q, kv: q >= kv
    if mask == "window":
        return lambda b, h, q, kv: (q >= kv) & (q - kv <= WINDOW)
    if mask == "documents":
        ids = documents_of(length, device)
        return lambda b, h, q, kv: (q >= kv) & (ids[q] == ids[kv])
    return None


def flex_functions(device):
    try:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    except ImportError:
        raise Skip(f"PyTorch {torch.__version__} has no flex_attention") from None
    if device == "cpu":
        raise Skip("flex_attention is timed compiled, on a card")
    return create_block_mask, flex_attention


def sdpa_backends():
    """name -> context manager for each backend this PyTorch has."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        return {}
    names = {
        "sdpa_flash": "FLASH_ATTENTION",
        "sdpa_cudnn": "CUDNN_ATTENTION",
        "sdpa_efficient": "EFFICIENT_ATTENTION",
        "sdpa_math": "MATH",
    }
    return {
        name: (lambda backend=getattr(SDPBackend, member): sdpa_kernel(backend))
        for name, member in names.items()
        if hasattr(SDPBackend, member)
    }


def neighborhood_function(space, kernel, stride):
    """What flex_attention takes for a neighborhood over `space`, with tokens in row-major order."""

    def sees(b, h, q, kv):
        seen, pitch = None, 1
        for length, window, step in reversed(list(zip(space, kernel, stride))):
            x, key = q // pitch % length, kv // pitch % length
            leader = torch.clamp(x // step * step + step // 2, max=length - 1)
            start = torch.clamp(leader - window // 2, 0, length - window)
            inside = (key >= start) & (key < start + window)
            seen = inside if seen is None else seen & inside
            pitch *= length
        return seen

    return sees


class Attention:
    """q, k, v and the gradient of out for one case."""

    def __init__(self, fields, device, shrink, gradients):
        batch, heads, kv_heads, q_len, kv_len, dim = (int(x) for x in fields[:6])
        self.mask = fields[6]
        self.q_len = q_len if q_len == 1 else q_len // shrink
        self.kv_len, self.grouped, self.device = kv_len // shrink, heads != kv_heads, device

        def rows(h, length):
            return torch.randn(batch, h, length, dim, device=device).to(torch.bfloat16).requires_grad_(gradients)

        self.q, self.k, self.v = rows(heads, self.q_len), rows(kv_heads, self.kv_len), rows(kv_heads, self.kv_len)
        self.score_bytes = 4 * batch * heads * self.q_len * self.kv_len

    def sdpa(self, name, context):
        if not hasattr(F, "scaled_dot_product_attention"):
            raise Skip(f"PyTorch {torch.__version__} has no scaled_dot_product_attention")
        if self.mask not in ("dense", "causal"):
            raise Skip(f"SDPA takes a {self.mask} mask as a tensor only")
        if name == "sdpa_math" and self.score_bytes > 16 << 30:
            raise Skip(f"its scores take {self.score_bytes >> 30} GiB")
        options = {"enable_gqa": True} if self.grouped else {}

        def run():
            with context():
                return F.scaled_dot_product_attention(self.q, self.k, self.v, is_causal=self.mask == "causal", **options)

        return run

    def flex(self):
        create_block_mask, flex_attention = flex_functions(self.device)
        function = mask_function(self.mask, self.kv_len, self.device)
        block_mask = function and create_block_mask(function, None, None, self.q_len, self.kv_len, device=self.device, _compile=True)
        torch._dynamo.reset()  # each case compiled for its own shapes, not for any
        compiled = torch.compile(flex_attention, dynamic=False)
        return lambda: compiled(self.q, self.k, self.v, block_mask=block_mask, enable_gqa=self.grouped)

    def backward_of(self, forward):
        out = forward()
        dout = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, (self.q, self.k, self.v), dout, retain_graph=True)


def attention_peers(kind, fields, device, shrink):
    """name -> a function that makes the timed call, one by one so that memory is given back."""

    def made(call):
        def make():
            case = Attention(fields, device, shrink, kind == "backward")
            forward = call(case)
            return case.backward_of(forward) if kind == "backward" else forward

        return make

    peers = {name: made(lambda case, n=name, c=context: case.sdpa(n, c)) for name, context in sdpa_backends().items()}
    if not peers:
        peers["sdpa"] = made(lambda case: case.sdpa("sdpa", None))
    peers["flex_attention"] = made(Attention.flex)
    return peers


class Neighborhood:
    """q, k, v [1, tokens, heads, dim] of one case, lengths divided as bench.cc does."""

    def __init__(self, fields, device, shrink, gradients):
        heads, dim = int(fields[0]), int(fields[1])
        sizes = [[int(x) for x in text.split("x")] for text in fields[2:5]]
        divisor = round(shrink ** (1 / len(sizes[0])))
        self.space, self.kernel = ([max(1, x // divisor) for x in part] for part in sizes[:2])
        self.stride = [min(max(1, x // divisor), window) for x, window in zip(sizes[2], self.kernel)]
        self.device, self.tokens = device, 1
        for length in self.space:
            self.tokens *= length
        shape = (1, self.tokens, heads, dim)
        self.q, self.k, self.v = (
            torch.randn(shape, device=device).to(torch.bfloat16).requires_grad_(gradients) for _ in range(3)
        )

    def flex(self):
        create_block_mask, flex_attention = flex_functions(self.device)
        function = neighborhood_function(self.space, self.kernel, self.stride)
        block_mask = create_block_mask(function, None, None, self.tokens, self.tokens, device=self.device, _compile=True)
        torch._dynamo.reset()
        compiled = torch.compile(flex_attention, dynamic=False)
        return lambda: compiled(*(t.transpose(1, 2) for t in (self.q, self.k, self.v)), block_mask=block_mask)

    def natten(self):
        try:
            import natten
        except ImportError:
            raise Skip("NATTEN is not installed") from None
        call = getattr(natten, f"na{len(self.space)}d")

        def run():
            q, k, v = (t.view(1, *self.space, *t.shape[2:]) for t in (self.q, self.k, self.v))
            return call(q, k, v, kernel_size=tuple(self.kernel), stride=tuple(self.stride))

        return run

    backward_of = Attention.backward_of


def neighborhood_peers(kind, fields, device, shrink):
    def maker(call):
        def make():
            case = Neighborhood(fields, device, shrink, kind == "neighborhood_backward")
            forward = call(case)
            return case.backward_of(forward) if kind == "neighborhood_backward" else forward

        return make

    return {"flex_attention": maker(Neighborhood.flex), "natten": maker(Neighborhood.natten)}


def matmul_peers(fields, device, shrink):
    def make():
        m, n, k = (int(x) // shrink for x in fields)
        a = torch.randn(m, k, device=device).to(torch.bfloat16)
        b = torch.randn(k, n, device=device).to(torch.bfloat16)
        out = torch.empty(m, n, device=device, dtype=torch.bfloat16)
        return lambda: torch.matmul(a, b, out=out)

    return {"torch.matmul": make}


def copy_peers(fields, device, shrink):
    def make():
        source = torch.randn(int(fields[0]) // shrink // shrink // 4, device=device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    return {"torch.copy_": make}


def block_mask_peers(fields, device, shrink):
    def maker(compiled):
        def make():
            try:
                from torch.nn.attention.flex_attention import create_block_mask
            except ImportError:
                raise Skip(f"PyTorch {torch.__version__} has no create_block_mask") from None
            if compiled and device == "cpu":
                raise Skip("compiled for a card alone")
            length = int(fields[0]) // shrink
            function = mask_function("documents", length, device)
            options = {"_compile": True} if compiled else {}
            return lambda: create_block_mask(function, None, None, length, length, device=device, **options)

        return make

    return {"create_block_mask": maker(False), "create_block_mask compiled": maker(True)}


def peers_of(kind, fields, device, shrink):
    if kind in ("attention", "backward"):
        return attention_peers(kind, fields, device, shrink)
    if kind.startswith("neighborhood"):
        return neighborhood_peers(kind, fields, device, shrink)
    if kind == "block_mask_pairs":
        return {}  # the peers of block_mask see every pair anyway
    return {"matmul": matmul_peers, "copy": copy_peers, "block_mask": block_mask_peers}[kind](fields, device, shrink)


def cases_of(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                kind, name, *fields = line.split()
                yield kind, name, fields


def measured(make, timer):
    try:
        return timer.time(make())
    except Skip as reason:
        return {"skipped": str(reason)}
    except Exception as error:  # a peer's own failure is a result, whatever it is
        return {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases")
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("peers.py: PyTorch sees no card")
    torch.manual_seed(1)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    print(json.dumps({"suite": "torch", "version": torch.__version__, "cuda": torch.version.cuda, "device": name}), flush=True)
    timer = Timer(args.device, args.warmup, args.seconds)
    for kind, case, fields in cases_of(args.cases):
        for peer, make in peers_of(kind, fields, args.device, args.shrink).items():
            row = {"suite": "bench", "kind": kind, "name": case, "by": peer, **measured(make, timer)}
            print(json.dumps(row), flush=True)
            if args.device == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
