#!/usr/bin/env python3
"""Packs the programs of a kit, and unpacks them where they run. Needs nothing but Python, which is on both machines.

    python3 pack.py pack FOLDER FILE       FOLDER's files as one compressed archive
    python3 pack.py unpack FILE FOLDER

The programs hold the same built-in model and the same kernels. A window that reaches from one to the next stores what they share once.
"""

import lzma
import sys
import tarfile
from pathlib import Path

# Programs have up to 70 MB; the packer takes 8 times as much memory, the unpacker as much.
WINDOW = 128 << 20
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": WINDOW, "mf": lzma.MF_HC4, "mode": lzma.MODE_NORMAL, "nice_len": 128}]


def pack(folder, file):
    with lzma.open(file, "wb", format=lzma.FORMAT_XZ, filters=FILTERS) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
        # Programs first and one after the other.
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.add(path, path.relative_to(folder).as_posix(), recursive=False)


def unpack(file, folder):
    with lzma.open(file) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        archive.extractall(folder, filter="data")


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("pack", "unpack"):
        sys.exit(__doc__)
    (pack if sys.argv[1] == "pack" else unpack)(*sys.argv[2:])
