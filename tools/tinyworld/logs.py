"""What training says while it runs: lines or a bar, metrics.jsonl, and a loss curve as SVG."""

import json
import math
import sys
import time


def say(text):
    print(text, flush=True)


class Record:
    """Of one stage. Losses are means over the steps since the line before."""

    def __init__(self, name, work, steps, batch, seconds_per_line, first):
        self.name, self.steps, self.batch, self.seconds = name, steps, batch, seconds_per_line
        self.path, self.curve = work / "metrics.jsonl", work / f"{name}.svg"
        self.since, self.written = time.monotonic(), first
        self.sums, self.bar = {}, sys.stdout.isatty()
        self.keep_before(first)
        if first:
            say(f"{name}: {'goes on at' if first < steps else 'done,'} step {first} of {steps}")

    def keep_before(self, first):
        """Drops what an interrupted run wrote after its last checkpoint: these steps come again."""
        rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        kept = [row for row in rows if row["stage"] != self.name or row["step"] <= first]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def step(self, step, values):
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        now = time.monotonic()
        if now - self.since < (1 if self.bar else self.seconds) and step != self.steps:
            return
        count = step - self.written
        means = {key: float(value) / count for key, value in self.sums.items()}
        speed = count * self.batch / (now - self.since)
        self.since, self.written, self.sums = now, step, {}
        self.write({"step": step, **means, "images_per_second": speed})
        left = (self.steps - step) * self.batch / speed
        figures = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        line = f"{self.name} {step}/{self.steps}  {figures}  {speed:.0f} images/s  {left / 60:.1f} min left"
        if self.bar:
            done = 24 * step // self.steps
            print(f"\r[{'#' * done}{'.' * (24 - done)}] {line}\x1b[K", end="", flush=True)
        else:
            say(line)
        if not math.isfinite(means["loss"]):
            raise SystemExit(f"{self.name}: the loss is not finite at step {step}")

    def evaluation(self, step, figures, seconds):
        """`seconds` that the evaluation took; they do not count as training."""
        self.since += seconds
        self.write({"step": step, **{f"val_{key}": value for key, value in figures.items()}})
        text = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        say(f"{chr(13) if self.bar else ''}{self.name} {step}/{self.steps}  on val: {text}")

    def write(self, figures):
        with self.path.open("a") as file:
            file.write(json.dumps({"stage": self.name, **figures}) + "\n")

    def close(self):
        if self.bar:
            print()
        rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        points = [(row["step"], row["loss"]) for row in rows if row["stage"] == self.name and "loss" in row]
        self.curve.write_text(curve(f"{self.name}: training loss", points))


def curve(title, points, width=640, height=360, margin=48):
    """A line with a logarithmic loss axis, as SVG."""
    points = [(step, loss) for step, loss in points if loss > 0]
    if len(points) < 2:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"/>\n'
    last = max(step for step, _ in points)
    low, high = (pick(math.log10(loss) for _, loss in points) for pick in (min, max))
    high = max(high, low + 1e-6)

    def x(step):
        return margin + (width - 2 * margin) * step / last

    def y(log):
        return margin + (height - 2 * margin) * (high - log) / (high - low)

    line = " ".join(f"{x(step):.1f},{y(math.log10(loss)):.1f}" for step, loss in points)
    ticks = [low + (high - low) * n / 4 for n in range(5)]
    rules = "".join(
        f'<path d="M{margin} {y(t):.1f}H{width - margin}" stroke="#ddd"/><text x="4" y="{y(t) + 4:.1f}">{10**t:.4f}</text>' for t in ticks
    )
    steps = "".join(f'<text x="{x(last * n / 4):.0f}" y="{height - margin + 20}">{last * n // 4}</text>' for n in range(5))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/><text x="{margin}" y="24" font-size="14">{title}</text>{rules}{steps}'
        f'<polyline points="{line}" fill="none" stroke="#06c" stroke-width="1.5"/></svg>\n'
    )
