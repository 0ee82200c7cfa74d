"""Writes tests/golden/rng/normals.json: the normals that src/rng must give, bit for bit.

`torch_randn` comes from torch itself (x86-64 with AVX2): it is the oracle of `--rng torch-cpu`.
`philox` comes from a port of the scheme documented in src/rng/philox.rs to numpy's f32 arithmetic: it shows that the
scheme gives the same bits on another platform.

    python tools/golden/rng.py            # needs torch, diffusers and numpy

f32 values are stored as the unsigned integers of their bits; long arrays as the SHA-256 of their little-endian bytes.
"""

import hashlib
import json
import pathlib

import diffusers
import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "rng" / "normals.json"
f32, u32, u64 = np.float32, np.uint32, np.uint64


def bits(array):
    return np.ascontiguousarray(array, f32).view(u32).ravel().tolist()


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest()


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(shape, generator=generator(seed)).numpy()


def torch_cases():
    seeds = [0, 1, 42, 2**31, 2**32 - 1, 2**32 + 5, 2**63 - 1]
    small = [{"seed": s, "size": n, "bits": bits(randn(s, n))} for s, n in [(0, 1), (1, 2), (42, 3), (7, 15), (7, 16), (7, 17)]]
    sizes = list(range(1, 41)) + [64, 100, 4 * 8 * 8, 4 * 64 * 64, 4 * 96 * 72]
    long = [{"seed": s, "size": n, "sha256": digest(randn(s, n))} for s in seeds for n in sizes]
    # Draws of one generator, one after the other: the spare normal of the small method outlives a large draw.
    g, sequence = generator(11), [3, 16, 2, 40, 1, 256]
    draws = np.concatenate([torch.randn(n, generator=g).numpy() for n in sequence])
    # Many seeds, 32 apart in value and some above 2^32: one digest over the draws of size 20.
    many = [i * 0x1_0000_0021 + 5 for i in range(4000)]
    return {
        "values": small,
        "digests": long,
        "sequence": {"seed": 11, "sizes": sequence, "sha256": digest(draws)},
        "many_seeds": {"first": 5, "step": 0x1_0000_0021, "count": 4000, "size": 20, "sha256": digest(np.stack([randn(s, 20) for s in many]))},
        "diffusers_batch": {
            "seeds": [9, 10, 2**32 + 9],
            "shape": [3, 4, 24, 40],
            "sha256": digest(randn_tensor((3, 4, 24, 40), generator=[generator(s) for s in [9, 10, 2**32 + 9]]).numpy()),
        },
    }


def philox_words(counter, key):
    c, k = [int(v) for v in counter], [int(v) for v in key]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


LN = [0.3333333, -0.2500082, 0.20001227, -0.16623357, 0.14201759, -0.13160183, 0.12761575, -0.07634493]
SIN = [-0.16666655, 0.008332178, -0.000195173]
COS = [0.041666646, -0.0013887368, 0.000024438452]


def horner(coefficients, x):
    p = np.full_like(x, f32(coefficients[-1]))
    for c in coefficients[-2::-1]:
        p = p * x + f32(c)
    return p


def philox_normals(seed, stream, count):
    """Elements 0..count of a stream; numpy rounds every f32 operation to nearest and fuses none."""
    key = (seed & 0xFFFFFFFF, seed >> 32)
    words = np.array([philox_words((i, 0, stream, 0), key) for i in range((count + 3) // 4)], dtype=u32).reshape(-1, 2)
    u = words[:, 0].astype(f32) * f32(2.0**-32) + f32(2.0**-33)
    offset = u.view(u32) - u32(0x3F3504F3)
    e = (offset.view(np.int32) >> 23).astype(f32)
    f = ((offset & u32(0x7FFFFF)) + u32(0x3F3504F3)).view(f32) - f32(1)
    z = f * f
    ln = e * f32(np.log(2.0)) + (f + (f * z * horner(LN, f) - f32(0.5) * z))
    radius = np.sqrt(f32(-2) * ln)
    quadrant = (words[:, 1] + u32(1 << 29)) >> u32(30)
    x = (words[:, 1] - (quadrant << u32(30))).view(np.int32).astype(f32) * (f32(np.pi / 2) * f32(2.0**-30))
    z = x * x
    sin = x + x * z * horner(SIN, z)
    cos = f32(1) - f32(0.5) * z + z * z * horner(COS, z)
    swap = (quadrant & 1) == 1
    s = np.where(swap, cos, sin) * np.where(quadrant >= 2, f32(-1), f32(1))
    c = np.where(swap, sin, cos) * np.where((quadrant == 1) | (quadrant == 2), f32(-1), f32(1))
    return np.stack([radius * c, radius * s], 1).ravel()[:count]


def philox_cases():
    cases = [(0, 0, 8), (42, 1, 6), (2**64 - 1, 2**32 - 1, 9)]
    return {
        "values": [{"seed": s, "stream": t, "bits": bits(philox_normals(s, t, n))} for s, t, n in cases],
        "digests": [{"seed": s, "stream": t, "size": 40_001, "sha256": digest(philox_normals(s, t, 40_001))} for s, t, _ in cases],
    }


def main():
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"), "torch's f32 normals differ without AVX2"
    made_by = {"torch": torch.__version__, "diffusers": diffusers.__version__, "numpy": np.__version__}
    golden = {"made_by": made_by, "torch_randn": torch_cases(), "philox": philox_cases()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(golden) + "\n")
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
