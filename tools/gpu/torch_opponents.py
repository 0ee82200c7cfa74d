#!/usr/bin/env python3
"""Times what PyTorch does on the cases of a kernel bench, on the same card.

    python3 torch_opponents.py bench.json torch.json [--seconds N]
    python3 torch_opponents.py --check cases.json

bench.json is what `syntic bench kernels --device cuda --json` prints, so that every shape is typed once: {"results": [CASE, ...]} with cases as

    {"op": "gemm_nt", "case": "ff2 64x64", "dtype": "f16", "shape": {"m": 8192, "n": 320, "k": 1280},
     "bias": true, "activation": "none", "residual": true, "flops": 6710886400, "bytes": 32276480, ...}

torch.json gets the ceilings of this card (8192^3 matrix products, a copy of 2 GiB) and the times of each case, by opponent:

    op           shape                                     opponents
    gemm_nt      m n k                                     matmul: the product alone (cuBLAS); layer: with bias, activation and residual;
                                                           compiled: the layer by torch.compile, max-autotune
    conv2d       n h w c o kernel stride skip up_h up_w    conv: the convolution alone, its input already joined and enlarged (cuDNN, channels
                                                           last, cudnn.benchmark); layer: with joining, enlarging and residual; compiled
    attention    batch queries keys heads head_dim causal  flash, cudnn, efficient: the backends of scaled_dot_product_attention
    group_norm   n h w c groups                            layer: with its activation, channels last; compiled
    layer_norm   rows width                                layer
    softmax      rows width                                layer
    add          rows width                                layer

Another op is left without an opponent. With the activation geglu the product has 2 n columns. low and high are the 10th and the 90th
percentile. What a backend refuses stands under "refused"; what the time (--seconds) did not suffice for, under "not_begun": both are no
times. torch.compile takes its time, so compiled layers come last, and only those that have something to fuse.

Buffers rotate past twice the L2 cache, data is random in [-1, 1], the calls of one rotation are one CUDA graph, so that Python and
launches are not in the times, and a time is the median of many replays.

--check needs no GPU: every opponent runs on PyTorch's meta device, and its operations must be as many as `syntic bench kernels --list --json`
counts. --device cpu times on the processor, to try the script.
"""

import argparse
import json
import os
import math
import statistics
import sys
import time
import warnings

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
WARM_SECONDS = 0.1
SECONDS = 0.2
FEWEST_REPLAYS = 15
MOST_SETS = 1024
PEAK_SIZE = 8192
COPY_BYTES = 2 << 30
# Where times mean nothing.
CPU_PEAK_SIZE, CPU_COPY_BYTES = 256, 1 << 20
ATTENTION = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}

device = "cuda"


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
    return torch.empty(shape, dtype=dtype, device=device).uniform_(-1, 1)


def image(*shape, dtype):
    return uniform(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


def compiled(layer):
    """Not compiled before its first call."""
    return torch.compile(layer, mode="max-autotune-no-cudagraphs", fullgraph=True, dynamic=False)


# Each opponent is a function that makes a set of inputs, and one that is timed on such a set. Those of LATER come last.

LATER = "compiled"


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

    opponents = {"matmul": (product, lambda x, weight: x @ weight.t()), "layer": (inputs, layer)}
    if activation not in (None, "none") or case.get("residual"):
        opponents[LATER] = (inputs, compiled(layer))
    return opponents


def conv2d(case, dtype):
    shape = case["shape"]
    n, h, w, c, o, kernel = (shape[key] for key in ("n", "h", "w", "c", "o", "kernel"))
    stride, skip, enlarged = shape.get("stride", 1), shape.get("skip", 0), (shape.get("up_h"), shape.get("up_w"))
    padding = kernel // 2

    def weights():
        return image(o, c, kernel, kernel, dtype=dtype), uniform(o, dtype=dtype) if case.get("bias", True) else None

    def joined():
        rows, columns = enlarged if enlarged[0] else (h, w)
        return image(n, c, rows, columns, dtype=dtype), *weights()

    def conv(x, weight, bias):
        if shape.get("bottom_right"):
            x = F.pad(x, (0, 1, 0, 1))
            return F.conv2d(x, weight, bias, stride)
        return F.conv2d(x, weight, bias, stride, padding)

    def layer(x, other, weight, bias, residual):
        if other is not None:
            x = torch.cat([x, other], dim=1)
        if enlarged[0]:
            x = F.interpolate(x, size=enlarged, mode="nearest")
        y = conv(x, weight, bias)
        return y if residual is None else y + residual

    def inputs():
        x, other = image(n, c - skip, h, w, dtype=dtype), image(n, skip, h, w, dtype=dtype) if skip else None
        with torch.device("meta"):
            meta = torch.empty(n, c, *(enlarged if enlarged[0] else (h, w)))
            result = conv(meta, torch.empty(o, c, kernel, kernel), None).shape
        residual = image(*result, dtype=dtype) if case.get("residual") else None
        return x, other, *weights(), residual

    opponents = {"conv": (joined, conv)}
    if skip or enlarged[0] or case.get("residual"):
        opponents |= {"layer": (inputs, layer), LATER: (inputs, compiled(layer))}
    return opponents


def attention(case, dtype):
    batch, queries, keys, heads, width = (case["shape"][key] for key in ("batch", "queries", "keys", "heads", "head_dim"))
    causal = bool(case["shape"].get("causal", 0))

    def inputs():
        # As a fused projection leaves them: heads side by side in a row, no copy before.
        def rows(length):
            return uniform(batch, length, heads, width, dtype=dtype).transpose(1, 2)

        return rows(queries), rows(keys), rows(keys)

    def by(backend):
        def attend(q, k, v):
            # Chosen in the call, so that a backend that cannot do it refuses, and another does not stand in.
            with sdpa_kernel([backend]):
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

        return attend

    if device != "cuda":
        return {"math": (inputs, by(SDPBackend.MATH))}
    return {name: (inputs, by(backend)) for name, backend in ATTENTION.items()}


def group_norm(case, dtype):
    n, h, w, c, groups = (case["shape"][key] for key in ("n", "h", "w", "c", "groups"))

    def inputs():
        return image(n, c, h, w, dtype=dtype), uniform(c, dtype=dtype), uniform(c, dtype=dtype)

    def layer(x, scale, shift):
        return activate(F.group_norm(x, groups, scale, shift), case.get("activation"))

    return {"layer": (inputs, layer), LATER: (inputs, compiled(layer))}


def layer_norm(case, dtype):
    rows, width = (case["shape"][key] for key in ("rows", "width"))

    def inputs():
        return uniform(rows, width, dtype=dtype), uniform(width, dtype=dtype), uniform(width, dtype=dtype)

    return {"layer": (inputs, lambda x, scale, shift: F.layer_norm(x, (width,), scale, shift))}


def softmax(case, dtype):
    rows, width = (case["shape"][key] for key in ("rows", "width"))
    return {"layer": (lambda: (uniform(rows, width, dtype=dtype),), lambda x: torch.softmax(x, dim=-1))}


def add(case, dtype):
    rows, width = (case["shape"][key] for key in ("rows", "width"))
    return {"layer": (lambda: tuple(uniform(rows, width, dtype=dtype) for _ in range(2)), lambda x, y: x + y)}


OPPONENTS = {
    "gemm_nt": gemm, "conv2d": conv2d, "attention": attention, "group_norm": group_norm, "layer_norm": layer_norm, "softmax": softmax,
    "add": add,
}  # fmt: skip
# Those whose operations PyTorch counts as we do.
COUNTED = ("gemm_nt", "conv2d", "attention")


def opponents_of(case):
    return OPPONENTS[case["op"]](case, DTYPES[case["dtype"]]) if case["op"] in OPPONENTS else {}


def bytes_of(tensors):
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)


def sets_of(first, moved, inputs):
    """As many sets of inputs as, together, are past twice the L2 cache."""
    if device != "cuda":
        return [first, inputs()]
    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 64 << 20)
    count = min(max(math.ceil(2 * cache / moved) + 1, 2), MOST_SETS)
    return [first] + [inputs() for _ in range(count - 1)]


def captured(sets, call):
    """A function that does all sets in turn and returns its seconds: one CUDA graph, timed by the card."""
    results = [None] * len(sets)
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
        return start.elapsed_time(end) / 1e3

    # The results lie apart, and live as long as this.
    replay.results = results
    return replay


def called(sets, call):
    """The same on a processor, which has no graphs."""

    def replay():
        start = time.perf_counter()
        for arguments in sets:
            call(*arguments)
        return time.perf_counter() - start

    return replay


def measure(inputs, call):
    """Microseconds of one call, from replays in which every set of inputs has its turn."""
    first = inputs()
    # Called before it is captured: libraries choose their kernels, and compilers compile, in their first call.
    moved = bytes_of(first) + bytes_of([call(*first)])
    sets = sets_of(first, moved, inputs)
    replay = (captured if device == "cuda" else called)(sets, call)

    def window(seconds, fewest):
        times, until = [], time.perf_counter() + seconds
        while time.perf_counter() < until or len(times) < fewest:
            times.append(replay() / len(sets) * 1e6)
        return sorted(times)

    if device == "cuda":
        window(WARM_SECONDS, 1)
    times = window(SECONDS if device == "cuda" else 0, FEWEST_REPLAYS if device == "cuda" else 1)
    low, high = times[len(times) // 10], times[-1 - len(times) // 10]
    return {"median_us": statistics.median(times), "low_us": low, "high_us": high, "replays": len(times), "sets": len(sets)}


def ceilings():
    size, copied = (PEAK_SIZE, COPY_BYTES) if device == "cuda" else (CPU_PEAK_SIZE, CPU_COPY_BYTES)
    found = {}
    for name in ("f16", "bf16"):
        timed = measure(*gemm({"shape": {"m": size, "n": size, "k": size}}, DTYPES[name])["matmul"])
        found[f"{name}_tflops"] = 2 * size**3 / timed["median_us"] / 1e6
    source, target = (torch.empty(copied, dtype=torch.uint8, device=device).random_() for _ in range(2))
    timed = measure(lambda: (source, target), lambda source, target: target.copy_(source))
    found["copy_gbs"] = 2 * copied / timed["median_us"] / 1e3
    return found


def refusal(error):
    """Its first line, if a backend said that it has no kernel for these shapes, and nothing else is wrong."""
    text = str(error)
    return text.splitlines()[0] if isinstance(error, RuntimeError) and "No available kernel" in text else None


def time_case(case, later, row, deadline):
    """Adds to `row` the opponents that are compiled, or the others. What was tried is no longer `not_begun`."""
    for name, opponent in opponents_of(case).items():
        if (name == LATER) != later or time.monotonic() > deadline:
            continue
        row["not_begun"].remove(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a backend that is asked alone says at length why it cannot
                row["opponents"][name] = measure(*opponent)
        except Exception as error:  # one opponent, whatever is wrong with it, does not take the others along
            refused = refusal(error)
            if refused is None:
                row.setdefault("errors", {})[name] = f"{type(error).__name__}: {error}"[:500]
            else:
                row.setdefault("refused", {})[name] = refused
        if device == "cuda":
            torch.cuda.empty_cache()


def time_all(cases, report, path, deadline):
    """Fills the report. Numbers of cases with an opponent that failed, and with one that was not begun."""
    rows = [{key: case[key] for key in ("op", "case", "dtype")} | {"opponents": {}} for case in cases]
    for case, row in zip(cases, rows):
        row["not_begun"] = list(opponents_of(case))
    report["ceilings"], report["results"] = ceilings(), rows
    for later in (False, True):
        for case, row in zip(cases, rows):
            time_case(case, later, row, deadline)
            if row["not_begun"] == [] or not later:
                print(json.dumps(row), flush=True)
            # Compilers may take more time than there is: what is there, is there.
            if later or row is rows[-1]:
                partial = f"{path}.partial"
                with open(partial, "w") as file:
                    json.dump(report, file, indent=1)
                os.replace(partial, path)
    return sum("errors" in row for row in rows), sum(bool(row["not_begun"]) for row in rows)


def check(cases):
    """Every opponent on the meta device. Number of those that fail or count other operations than the case."""
    wrong = 0
    for case in cases:
        for name, (inputs, call) in opponents_of(case).items():
            if name == LATER:
                continue
            what = f"{case['op']}/{case['case']} {name}"
            try:
                arguments = inputs()
                with FlopCounterMode(display=False) as counter:
                    call(*arguments)
                counted, expected = counter.get_total_flops(), case["flops"]
                if case["op"] == "attention" and case["shape"].get("causal"):
                    expected = counted  # PyTorch counts the pairs that are masked
                if case["op"] in COUNTED and counted != expected:
                    raise ValueError(f"{counted} operations, the case has {expected}")
                print(f"{what}: ok")
            except Exception as error:
                wrong += 1
                print(f"{what}: {type(error).__name__}: {error}")
    return wrong


def load(path):
    try:
        with open(path) as file:
            return json.load(file)["results"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"torch_opponents.py: {path} is no output of `syntic bench kernels --json`: {error}")


def main():
    global device
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", help="output of `syntic bench kernels --json`, with --check also of --list --json")
    parser.add_argument("out", nargs="?", help="file to write")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin nothing after so long")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--check", action="store_true", help="see whether all opponents fit the cases; needs no GPU")
    args = parser.parse_args()
    deadline = time.monotonic() + args.seconds
    cases = load(args.bench)
    if args.check:
        device = "meta"
        sys.exit(1 if check(cases) else 0)
    if not args.out:
        parser.error("names no file to write")
    device = args.device
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch_opponents.py: PyTorch finds no CUDA device")
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    name = torch.cuda.get_device_properties(0).name if device == "cuda" else "cpu: times mean nothing"
    report = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    with torch.inference_mode():
        failed, not_begun = time_all(cases, report, args.out, deadline)
    if not_begun:
        print(f"{not_begun} cases have opponents that were not begun for want of time")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
