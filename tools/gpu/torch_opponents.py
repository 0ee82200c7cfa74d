#!/usr/bin/env python3
"""Times what PyTorch does on the cases of a kernel bench, on the same card.

    python3 torch_opponents.py bench.json torch.json

bench.json is what `syntic bench kernels --device cuda --json` prints: {"results": [CASE, ...]} with cases as

    {"op": "gemm_nt", "case": "ff2 64x64", "dtype": "f16", "shape": {"m": 8192, "n": 320, "k": 1280},
     "bias": true, "activation": "none", "residual": true, "flops": 6710886400, "bytes": 32276480,
     "kernels": ["gemm_nt_128x160_f16"], "median_us": 21.3, "low_us": 21.1, "high_us": 21.9}

torch.json gets the ceilings of this card (8192^3 matrix products, a copy of 2 GiB) and the times of each case, by opponent:

    op           shape               opponents
    gemm_nt      m n k               matmul: the product alone; layer: with bias, activation and residual
    group_norm   n h w c groups      layer: with its activation, channels last
    layer_norm   rows width          layer
    softmax      rows width          layer

Another op is left without an opponent. With the activation geglu the product has 2 n columns. low and high are the 10th and the 90th
percentile.

Buffers rotate past twice the L2 cache, data is random in [-1, 1], the calls of one rotation are one CUDA graph, so that Python and
launches are not in the times, and a time is the median of many replays.
"""

import json
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F

DEVICE = "cuda"
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
WARM_SECONDS = 0.2
SECONDS = 0.4
FEWEST_REPLAYS = 15
MOST_SETS = 1024
PEAK_SIZE = 8192
COPY_BYTES = 2 << 30


def activate(y, name):
    if name in (None, "none"):
        return y
    if name == "silu":
        return F.silu(y)
    if name == "gelu":
        return F.gelu(y)
    if name == "gelu_tanh":
        return F.gelu(y, approximate="tanh")
    if name == "quick_gelu":
        return y * torch.sigmoid(1.702 * y)
    if name == "geglu":
        value, gate = y.chunk(2, dim=-1)
        return value * F.gelu(gate)
    raise ValueError(f"activation {name}")


def uniform(*shape, dtype):
    return torch.empty(shape, dtype=dtype, device=DEVICE).uniform_(-1, 1)


# Each opponent is a function that makes a set of inputs, and one that is timed on such a set.


def gemm(case, dtype):
    m, n, k = (case["shape"][key] for key in "mnk")
    activation = case.get("activation")
    columns = 2 * n if activation == "geglu" else n

    def product():
        return uniform(m, k, dtype=dtype), uniform(columns, k, dtype=dtype)

    def inputs():
        bias = uniform(columns, dtype=dtype) if case.get("bias", True) else None
        residual = uniform(m, n, dtype=dtype) if case.get("residual") else None
        return (*product(), bias, residual)

    def layer(x, weight, bias, residual):
        y = activate(F.linear(x, weight, bias), activation)
        return y if residual is None else y + residual

    return {"matmul": (product, lambda x, weight: x @ weight.t()), "layer": (inputs, layer)}


def group_norm(case, dtype):
    n, h, w, c, groups = (case["shape"][key] for key in ("n", "h", "w", "c", "groups"))

    def inputs():
        x = uniform(n, c, h, w, dtype=dtype).contiguous(memory_format=torch.channels_last)
        return x, uniform(c, dtype=dtype), uniform(c, dtype=dtype)

    return {"layer": (inputs, lambda x, scale, shift: activate(F.group_norm(x, groups, scale, shift), case.get("activation")))}


def layer_norm(case, dtype):
    rows, width = (case["shape"][key] for key in ("rows", "width"))

    def inputs():
        return uniform(rows, width, dtype=dtype), uniform(width, dtype=dtype), uniform(width, dtype=dtype)

    return {"layer": (inputs, lambda x, scale, shift: F.layer_norm(x, (width,), scale, shift))}


def softmax(case, dtype):
    rows, width = (case["shape"][key] for key in ("rows", "width"))
    return {"layer": (lambda: (uniform(rows, width, dtype=dtype),), lambda x: torch.softmax(x, dim=-1))}


OPPONENTS = {"gemm_nt": gemm, "group_norm": group_norm, "layer_norm": layer_norm, "softmax": softmax}


def bytes_of(tensors):
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)


def seconds_of(start, end):
    return start.elapsed_time(end) / 1e3


def measure(inputs, call):
    """Microseconds of one call, from replays of a graph in which every set of inputs has its turn."""
    first = inputs()
    moved = bytes_of(first) + bytes_of([call(*first)])
    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 64 << 20)
    count = min(max(math.ceil(2 * cache / moved) + 1, 2), MOST_SETS)
    sets = [first] + [inputs() for _ in range(count - 1)]
    results = [None] * count
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for i, arguments in enumerate(sets):
            results[i] = call(*arguments)

    def replay():
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return seconds_of(start, end) / count * 1e6

    until = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < until:
        replay()
    times = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until or len(times) < FEWEST_REPLAYS:
        times.append(replay())
    times.sort()
    low, high = times[len(times) // 10], times[-1 - len(times) // 10]
    return {"median_us": statistics.median(times), "low_us": low, "high_us": high, "replays": len(times), "sets": count}


def ceilings():
    found = {}
    for name in ("f16", "bf16"):
        shape = {"m": PEAK_SIZE, "n": PEAK_SIZE, "k": PEAK_SIZE}
        timed = measure(*gemm({"shape": shape}, DTYPES[name])["matmul"])
        found[f"{name}_tflops"] = 2 * PEAK_SIZE**3 / timed["median_us"] / 1e6
    source, target = (torch.empty(COPY_BYTES, dtype=torch.uint8, device=DEVICE).random_() for _ in range(2))
    timed = measure(lambda: (source, target), lambda source, target: target.copy_(source))
    found["copy_gbs"] = 2 * COPY_BYTES / timed["median_us"] / 1e3
    return found


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        sys.exit("torch_opponents.py: PyTorch finds no CUDA device")
    try:
        with open(sys.argv[1]) as file:
            cases = json.load(file)["results"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"torch_opponents.py: {sys.argv[1]} is no output of `syntic bench kernels --json`: {error}")
    torch.manual_seed(1)
    properties = torch.cuda.get_device_properties(0)
    report = {"device": properties.name, "torch": torch.__version__, "cuda": torch.version.cuda}
    failed = 0
    with torch.inference_mode():
        report["ceilings"] = ceilings()
        report["results"] = []
        for case in cases:
            row = {key: case[key] for key in ("op", "case", "dtype")}
            try:
                opponents = OPPONENTS[case["op"]](case, DTYPES[case["dtype"]]) if case["op"] in OPPONENTS else {}
                row["opponents"] = {name: measure(*opponent) for name, opponent in opponents.items()}
            except Exception as error:  # one case, whatever is wrong with it, does not take the others along
                row["error"] = f"{type(error).__name__}: {error}"
                failed += 1
            print(json.dumps(row), flush=True)
            report["results"].append(row)
            torch.cuda.empty_cache()
    with open(sys.argv[2], "w") as file:
        json.dump(report, file, indent=1)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
