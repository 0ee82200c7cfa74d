#!/usr/bin/env python3
"""Lays our times beside PyTorch's and the ceilings of the card.

    python3 report.py FOLDER                 writes comparison.csv and prints the table
    python3 report.py FOLDER --slowest N     prints the N cases furthest from their floor: op, case, dtype and kernels, tab-separated

FOLDER has bench.json and, for the table, torch.json. The floor of a case is the larger of its operations over the measured matrix peak
and its bytes over the measured copy bandwidth; without torch.json, --slowest goes by time.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

COLUMNS = ["op", "case", "dtype", "us", "low", "high", "torch_us", "opponent", "speedup", "tflops", "gbs", "floor_us", "share_of_floor"]


def load(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        sys.exit(f"report.py: {path}: {error}; the step that writes it has a log beside it")


def key(row):
    return row["op"], row["case"], row["dtype"]


def floor_us(case, ceilings):
    peak = ceilings.get(f"{case['dtype']}_tflops")
    compute = case["flops"] / peak / 1e6 if peak else 0
    return max(compute, case["bytes"] / ceilings["copy_gbs"] / 1e3)


def rows(bench, torch):
    """A row for each opponent of each case; one without, where there is none."""
    opponents = {key(row): row.get("opponents", {}) for row in torch["results"]}
    for case in bench["results"]:
        us = case["median_us"]
        floor = floor_us(case, torch["ceilings"])
        ours = {
            "op": case["op"],
            "case": case["case"],
            "dtype": case["dtype"],
            "us": us,
            "low": case["low_us"],
            "high": case["high_us"],
            "tflops": case["flops"] / us / 1e6,
            "gbs": case["bytes"] / us / 1e3,
            "floor_us": floor,
            "share_of_floor": floor / us,
        }
        for name, timed in opponents.get(key(case), {}).items() or [("none", None)]:
            theirs = {"torch_us": timed["median_us"], "speedup": timed["median_us"] / us} if timed else {}
            yield {**ours, "opponent": name, **theirs}


def text(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(bench, torch, folder):
    lines = [{name: text(row.get(name, "")) for name in COLUMNS} for row in rows(bench, torch)]
    with open(folder / "comparison.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    widths = {name: max([len(name)] + [len(line[name]) for line in lines]) for name in COLUMNS}
    for line in [dict(zip(COLUMNS, COLUMNS))] + lines:
        print("  ".join(line[name].ljust(widths[name]) for name in COLUMNS).rstrip())
    print("\nceilings of this run: " + ", ".join(f"{name} {text(value)}" for name, value in torch["ceilings"].items()))


def slowest(bench, torch, count):
    if torch is None:
        cases = sorted(bench["results"], key=lambda case: -case["median_us"])
    else:
        cases = sorted(bench["results"], key=lambda case: floor_us(case, torch["ceilings"]) / case["median_us"])
    for case in cases[:count]:
        print("\t".join([*key(case), "|".join(case["kernels"])]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slowest", type=int, metavar="N")
    arguments = parser.parse_args()
    bench = load(arguments.folder / "bench.json")
    path = arguments.folder / "torch.json"
    if arguments.slowest is not None:
        slowest(bench, load(path) if path.exists() else None, arguments.slowest)
    else:
        table(bench, load(path), arguments.folder)


if __name__ == "__main__":
    main()
