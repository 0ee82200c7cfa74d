#!/usr/bin/env python3
"""Lays our times beside PyTorch's, diffusers' and the ceilings of the card, all of the same run.

    python3 report.py FOLDER                 writes kernels.csv and stages.csv, and prints both as tables with their ratios
    python3 report.py FOLDER --slowest N     prints the N cases furthest from their floor: op, case, dtype and kernels, tab-separated

FOLDER has what the steps of `run` wrote: bench.json (kernels), torch.json (PyTorch on the same cases), stages.json (our stages), diffusers.json.
What is not there is named, and the exit status is 1. A ratio is their time over ours, so above 1 we take less; without a time there is none:
"refused", "failed", "not begun" and "not finished" stand in its place.

The floor of a case is the larger of its operations over the matrix peak and its bytes over the copy bandwidth, each the best that was measured
in this run, by us or by PyTorch.
"""

import argparse
import csv
import json
import math
import sys
from pathlib import Path

KERNELS = ["op", "case", "dtype", "us", "low", "high", "torch_us", "opponent", "ratio", "tflops", "gbs", "floor_us", "share_of_floor"]
STAGES = [
    "who", "mode", "dtype", "batch", "text_ms", "step_ms", "decode_ms", "images_per_s", "ratio", "share_of_peak", "finite", "status",
]  # fmt: skip


def load(path):
    """The report of a step; none if it is not there."""
    if not path.exists():
        return None
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        sys.exit(f"report.py: {path}: {error}; the step that writes it has a log beside it")


def key(row):
    return row["op"], row["case"], row["dtype"]


def peaks(bench, stages, torch):
    """The best that was measured: TFLOP/s by type, and GB/s of a copy."""
    found = {}

    def best(name, value):
        if value is not None:
            found[name] = max(found.get(name, 0.0), value)

    for report in (bench, stages):
        if report and report["ceilings"]:
            measured = report["ceilings"]
            best("copy_gbs", measured["copy_gbs"])
            for dtype in {row["dtype"] for row in report["results"]}:
                best(f"{dtype}_tflops", measured["matmul_tflops"])
    for name, value in (torch or {}).get("ceilings", {}).items():
        best(name, value)
    return found


def floor_us(case, best):
    peak, copy = best.get(f"{case['dtype']}_tflops"), best.get("copy_gbs")
    return max(case["flops"] / peak / 1e6 if peak else 0, case["bytes"] / copy / 1e3 if copy else 0)


def opponents(row):
    """Name and time, or name and why there is none, of each."""
    for name, timed in row.get("opponents", {}).items():
        yield name, timed["median_us"]
    for name in row.get("refused", {}):
        yield name, "refused"
    for name in row.get("errors", {}):
        yield name, "failed"
    for name in row.get("not_begun", []):
        yield name, "not begun"


def kernel_rows(bench, torch, best):
    """A row for each opponent of each case; one without, where there is none."""
    theirs = {key(row): list(opponents(row)) for row in torch["results"]} if torch else {}
    for case in bench["results"]:
        us, floor = case["median_us"], floor_us(case, best)
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
        for name, timed in theirs.get(key(case)) or [("none", None)]:
            ratio = {"ratio": timed / us} if isinstance(timed, float) else {}
            yield {**ours, "opponent": name, **({} if timed is None else {"torch_us": timed}), **ratio}


def fastest_of(rows):
    """For each case with opponents, the ratio to the fastest that does all that ours does."""
    found = {}
    for row in rows:
        alone = row["opponent"] in ("matmul", "conv") and any(key(other) == key(row) and other["opponent"] == "layer" for other in rows)
        if "ratio" in row and not alone:
            found[key(row)] = min(found.get(key(row), math.inf), row["ratio"])
    return found


def stage_rows(stages, peers, best):
    """Ours by batch, theirs by type, mode and batch. The ratio is ours over theirs in images a second, of our best: above 1 we make more."""
    ours = {}
    for row in stages["results"] if stages else []:
        line = ours.setdefault(row["batch"], {"who": "syntic", "mode": "graph", "dtype": row["dtype"], "batch": row["batch"], "status": "ok"})
        line["finite"] = row["finite"]
        if row["stage"] == "batch":
            peak = best.get(f"{row['dtype']}_tflops")
            line |= {"images_per_s": row["images_per_s"], "share_of_peak": row["tflops"] / peak if peak else ""}
        else:
            line[f"{row['stage']}_ms"] = row["median_s"] * 1e3
    top = max((line["images_per_s"] for line in ours.values()), default=None)
    yield from ours.values()
    for row in peers["results"] if peers else []:
        # Killed while it ran: its step was ended.
        status = "not finished" if row["status"] == "begun" else row["status"]
        line = {"who": peers["peer"], "mode": row["mode"], "dtype": row["dtype"], "batch": row["batch"], "status": status}
        if row["status"] == "ok":
            line |= {f"{stage}_ms": row[f"{stage}_s"] * 1e3 for stage in ("text", "step", "decode")}
            line |= {"images_per_s": row["images_per_s"], "finite": "all" if row["finite"] else "not all"}
            if top:
                line["ratio"] = top / row["images_per_s"]
        yield line


def text(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(columns, rows, path):
    lines = [{name: text(row.get(name, "")) for name in columns} for row in rows]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
    widths = {name: max([len(name)] + [len(line[name]) for line in lines]) for name in columns}
    for line in [dict(zip(columns, columns))] + lines:
        print("  ".join(line[name].ljust(widths[name]) for name in columns).rstrip())
    print()


def left_out(bench, torch):
    """How many cases have an opponent that was not timed, and of how many: it may be the fastest."""
    cases = {key(row) for row in bench["results"]} if bench else set()
    rows = [row for row in torch["results"] if key(row) in cases] if torch else []
    return sum(bool(row.get("errors") or row.get("not_begun")) for row in rows), len(rows)


def summary(kernels, stages, reports, best):
    """What the tables say, in a few lines; true if all was timed that was asked for, and may be compared."""
    print("best ceilings of this run: " + ", ".join(f"{name} {text(value)}" for name, value in best.items()))
    wrong = []
    ratios = list(fastest_of(kernels).values())
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        won = sum(ratio >= 1 for ratio in ratios)
        print(f"kernels: {len(ratios)} cases with an opponent, {won} at least as fast as the fastest that was timed; ratio {mean:.3f} (geometric mean)")
    untimed, cases = left_out(reports["bench.json"], reports["torch.json"])
    if untimed:
        wrong.append(f"INCOMPLETE: {untimed} of {cases} cases have an opponent that was not timed")
    ok = [row for row in stages if row["status"] == "ok"]
    tops = [max((row for row in ok if (row["who"] == "syntic") == ours), key=lambda row: row["images_per_s"], default=None) for ours in (True, False)]
    for row in filter(None, tops):
        print(f"{row['who']}: {row['images_per_s']:.3f} images/s at best ({row['mode']}, {row['dtype']}, batch {row['batch']})")
    if all(tops):
        print(f"images/s, ours over theirs: {tops[0]['images_per_s'] / tops[1]['images_per_s']:.3f}")
        ours, theirs = reports["stages.json"], reports["diffusers.json"]
        same = [name for name in ("evaluations", "guidance", "steps") if ours[name] != theirs.get(name)]
        same += ["size"] if list(ours["size"]) != [theirs["size"]] * 2 else []
        if same:
            wrong.append(f"NOT COMPARABLE: the two differ in {', '.join(same)}")
    theirs = [row for row in stages if row["who"] != "syntic" and row["status"] != "not asked for"]
    late = [row for row in theirs if row["status"] != "ok"]
    if late:
        names = ", ".join(f"{row['mode']} {row['dtype']} batch {row['batch']} ({row['status']})" for row in late)
        wrong.append(f"INCOMPLETE: {len(late)} of {len(theirs)} of their ways not timed: {names}")
    for row in ok:
        if not is_finite(row):
            wrong.append(f"NOT FINITE: {row['who']}, {row['mode']}, {row['dtype']}, batch {row['batch']}: {row['finite']} of its images")
    for line in wrong:
        print(line)
    return not wrong


def is_finite(row):
    """Ours are counted, "7 of 8"; theirs are "all" or "not all"."""
    made, _, of = row["finite"].partition(" of ")
    return row["finite"] == "all" or made == of


def report(folder):
    names = ("bench.json", "torch.json", "stages.json", "diffusers.json")
    reports = {name: load(folder / name) for name in names}
    bench, torch, stages, peers = (reports[name] for name in names)
    best = peaks(bench, stages, torch)
    kernels = list(kernel_rows(bench, torch, best)) if bench else []
    of_stages = list(stage_rows(stages, peers, best))
    table(KERNELS, kernels, folder / "kernels.csv")
    table(STAGES, of_stages, folder / "stages.csv")
    comparable = summary(kernels, of_stages, reports, best)
    notes = {json_of.get("note") for json_of in (bench, stages) if json_of and json_of.get("note")}
    for note in sorted(notes):
        print(f"NOTE: {note}")
    missing = [name for name in names if reports[name] is None]
    if missing:
        print(f"missing: {', '.join(missing)}; the steps that write them have logs beside them")
    return comparable and not missing


def slowest(bench, best, count):
    by_floor = f"{bench['results'][0]['dtype']}_tflops" in best if bench["results"] else False
    share = (lambda case: floor_us(case, best) / case["median_us"]) if by_floor else (lambda case: -case["median_us"])
    for case in sorted(bench["results"], key=share)[:count]:
        print("\t".join([*key(case), "|".join(case["kernels"])]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slowest", type=int, metavar="N")
    arguments = parser.parse_args()
    folder = arguments.folder
    if arguments.slowest is None:
        sys.exit(0 if report(folder) else 1)
    bench = load(folder / "bench.json")
    if bench is None:
        sys.exit(f"report.py: {folder}/bench.json is not there; the step bench writes it")
    slowest(bench, peaks(bench, None, load(folder / "torch.json")), arguments.slowest)


if __name__ == "__main__":
    main()
