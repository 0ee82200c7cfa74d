#!/usr/bin/env python3
"""Times the making of images with diffusers, each way at its best: what `syntic bench stages` is set beside.

    python diffusers_speed.py --model DIR --out diffusers.json [--batches 1,4,16] [--dtypes f16,bf16] [--modes eager,max-autotune] [--seconds N]

DIR is a model folder on this machine; nothing is downloaded. `syntic random-model --arch sd15 --seed 1 --out DIR` writes one, so that both
sides compute with the same weights. Sampler, steps and guidance are those of `syntic bench stages`: the model's own, 20, 7.5.

Networks are channels-last with fused projections of queries, keys and values, and cudnn.benchmark is on. `eager` is PyTorch as it is; another
mode compiles UNet and decoder with torch.compile in that mode (default, reduce-overhead, max-autotune, max-autotune-no-cudagraphs). Prompts
are token ids; the negative prompt is encoded once for all. Pixels are rounded to bytes on the card and come to the host. A time is that of a
whole batch, the median of --reps runs after a warm-up; stages are from one more run, in which the host waits for each.

Order, as time (--seconds) allows: for each type, every batch in eager mode, then the other modes at the batch that was best; then other
batches in those modes. The report is written after every row, so a run that is killed leaves what it had. Each row has a status: ok, begun
(it was killed there), not begun, not asked for (--best-only), out of memory, or failed. Exit code: 0 if there is a time for every mode and type, 1 if not.
"""

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path

import diffusers
import torch
import torch._dynamo
import torch._inductor.config
from diffusers import StableDiffusionPipeline

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
MODES = ["eager", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
# As the ids of `syntic bench stages`: any, but not all the same.
ID_STEP = 7919


def is_out_of_memory(error):
    return isinstance(error, torch.cuda.OutOfMemoryError)


class Pipeline:
    """A model in one type and one mode, and how it makes images."""

    def __init__(self, args, dtype, mode):
        self.args, self.device = args, torch.device(args.device)
        pipe = StableDiffusionPipeline.from_pretrained(
            args.model, dtype=DTYPES[dtype], tokenizer=None, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False, local_files_only=True,
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        pipe.to(self.device)
        pipe.fuse_qkv_projections()
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
        self.decode = pipe.vae.decode
        if mode != "eager":
            options = {} if mode == "default" else {"mode": mode}
            pipe.unet = torch.compile(pipe.unet, fullgraph=True, dynamic=False, **options)
            self.decode = torch.compile(pipe.vae.decode, fullgraph=True, dynamic=False, **options)
        self.pipe = pipe
        config = pipe.text_encoder.config
        self.length, self.vocabulary = config.max_position_embeddings, config.vocab_size
        self.negative = self.encode(torch.zeros(1, self.length, dtype=torch.long, device=self.device))

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def encode(self, ids):
        return self.pipe.text_encoder(ids)[0]

    def pixels(self, latents):
        """A slice of latents [n, 4, h, w] as bytes [n, H, W, 3] on the host, and whether all is finite."""
        image = self.decode(latents / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
        finite = bool(torch.isfinite(image).flatten(1).all(dim=1).all())
        image = ((image / 2 + 0.5).clamp(0, 1) * 255).round().nan_to_num().to(torch.uint8)
        return image.permute(0, 2, 3, 1).contiguous().cpu(), finite

    def run(self, batch, decode_batch, marks=None):
        """Makes `batch` images. With `marks`, waits after each stage and notes the time there."""

        def mark(name):
            if marks is not None:
                self.synchronize()
                marks.append((name, time.perf_counter()))

        def after_step(pipe, step, timestep, tensors):
            mark("step")
            return tensors

        args = self.args
        ids = torch.arange(batch * self.length, device=self.device) * ID_STEP % self.vocabulary
        mark("begin")
        prompts = self.encode(ids.reshape(batch, self.length))
        mark("text")
        latents = self.pipe(
            prompt_embeds=prompts,
            negative_prompt_embeds=self.negative.expand(batch, -1, -1) if args.guidance > 1 else None,
            num_inference_steps=args.steps,
            guidance_scale=args.guidance,
            height=args.size,
            width=args.size,
            generator=torch.Generator(self.device).manual_seed(1),
            output_type="latent",
            callback_on_step_end=after_step if marks is not None else None,
        ).images.clone()
        mark("denoised")
        finite = True
        for part in latents.split(decode_batch):
            finite &= self.pixels(part)[1]
            mark("decode")
        self.synchronize()
        return finite

    def evaluations(self):
        self.pipe.scheduler.set_timesteps(self.args.steps)
        return len(self.pipe.scheduler.timesteps)


def stage_times(marks, batch):
    """Seconds of the text encoder, of a step (median) and of decoding an image, from the marks of a run."""
    spans = [(name, at - before) for (_, before), (name, at) in zip(marks, marks[1:])]
    of = {name: [span for other, span in spans if other == name] for name in ("text", "step", "decode")}
    # The first step has the pipeline's preparation in it.
    steps = of["step"][1:] or of["step"]
    return {"text_s": of["text"][0], "step_s": statistics.median(steps), "decode_s": sum(of["decode"]) / batch}


def measure(pipeline, row, reps):
    """Fills a row; its first run compiles."""
    batch, decode_batch = row["batch"], row["decode_batch"]
    if pipeline.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    pipeline.run(batch, decode_batch)
    row["first_run_s"] = time.perf_counter() - start
    pipeline.run(batch, decode_batch)
    seconds, finite = [], True
    for _ in range(reps):
        pipeline.synchronize()
        start = time.perf_counter()
        finite &= pipeline.run(batch, decode_batch)
        seconds.append(time.perf_counter() - start)
    marks = []
    pipeline.run(batch, decode_batch, marks)
    row |= {"seconds": seconds, "batch_s": statistics.median(seconds), "finite": finite, **stage_times(marks, batch)}
    row["images_per_s"] = batch / row["batch_s"]
    if pipeline.device.type == "cuda":
        row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    row["status"] = "ok"


class Report:
    """The rows, on disk after each change."""

    def __init__(self, args):
        on_card = args.device == "cuda"
        self.path, self.rows = args.out, []
        self.head = {
            "peer": "diffusers",
            "device": torch.cuda.get_device_name() if on_card else f"{args.device}: times mean little",
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "model": str(args.model),
            "size": args.size,
            "steps": args.steps,
            "guidance": args.guidance,
        }

    def write(self):
        best = max((row for row in self.rows if row["status"] == "ok"), key=lambda row: row["images_per_s"], default=None)
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps({**self.head, "best": best, "results": self.rows}, indent=1) + "\n")
        partial.replace(self.path)

    def plan(self, dtype, mode, batch):
        row = {"dtype": dtype, "mode": mode, "batch": batch, "decode_batch": batch, "status": "not begun"}
        self.rows.append(row)
        return row

    def best_of(self, dtype, mode):
        done = [row for row in self.rows if (row["dtype"], row["mode"], row["status"]) == (dtype, mode, "ok")]
        return max(done, key=lambda row: row["images_per_s"], default=None)


class Bench:
    def __init__(self, args):
        self.args, self.report, self.loaded = args, Report(args), {}
        self.deadline = time.monotonic() + args.seconds

    def pipeline(self, dtype, mode):
        """One at a time: a model takes gigabytes, and its graphs more."""
        if (dtype, mode) not in self.loaded:
            self.loaded.clear()
            if self.args.device == "cuda":
                torch.cuda.empty_cache()
            torch._dynamo.reset()
            self.loaded[dtype, mode] = Pipeline(self.args, dtype, mode)
        return self.loaded[dtype, mode]

    def time(self, row):
        if time.monotonic() > self.deadline:
            return
        row["status"] = "begun"
        self.report.write()
        try:
            pipeline = self.pipeline(row["dtype"], row["mode"])
            self.report.head["evaluations"] = pipeline.evaluations()
            measure(pipeline, row, self.args.reps)
        except Exception as error:  # one way does not take the others along
            row["status"] = "out of memory" if is_out_of_memory(error) else f"failed: {type(error).__name__}: {error}"[:800]
            if is_out_of_memory(error):
                torch.cuda.empty_cache()
            else:
                self.loaded.clear()
        self.report.write()
        print({key: row[key] for key in ("dtype", "mode", "batch", "status", "images_per_s") if key in row}, flush=True)

    def run(self):
        args = self.args
        plan = {(d, m): [self.report.plan(d, m, batch) for batch in args.batches] for d in args.dtypes for m in args.modes}
        for rows in plan.values():
            for row in rows:
                row["decode_batch"] = min(row["batch"], args.decode_batch)
        first = args.modes[0]
        for dtype in args.dtypes:
            for row in plan[dtype, first]:
                self.time(row)
            best = self.report.best_of(dtype, first)
            for mode in args.modes[1:]:
                # Most images a second there, so likely here.
                for row in plan[dtype, mode]:
                    if best and row["batch"] == best["batch"]:
                        self.time(row)
            if best and args.best_only:
                for row in self.report.rows:
                    if row["dtype"] == dtype and row["mode"] != first and row["batch"] != best["batch"]:
                        row["status"] = "not asked for"
        for row in self.report.rows:
            if row["status"] == "not begun" and row["mode"] != first:
                self.time(row)
        self.report.write()
        return all(self.report.best_of(dtype, mode) for dtype, mode in plan)


def listed(of):
    return lambda text: [of(part) for part in text.split(",")]


def one_of(names):
    def name(text):
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(names)}")
        return text

    return name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder in the diffusers layout")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--batches", type=listed(int), default=[1, 4, 16, 32], help="images at once")
    parser.add_argument("--dtypes", type=listed(one_of(DTYPES)), default=["f16", "bf16"])
    parser.add_argument("--modes", type=listed(one_of(MODES)), default=["eager", "max-autotune"])
    parser.add_argument("--best-only", action="store_true", help="compiled modes at the batch that was best in the first mode, and no other")
    parser.add_argument("--decode-batch", type=int, default=4, help="images decoded at once, at most")
    parser.add_argument("--size", type=int, default=512, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no row after so long")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("diffusers_speed.py: PyTorch finds no CUDA device")
    if not (args.model / "model_index.json").is_file():
        sys.exit(f"diffusers_speed.py: {args.model} is no model folder: `syntic random-model --arch sd15 --out DIR` writes one")
    torch.backends.cudnn.benchmark = True
    # A convolution with a kernel of one is a product, which has better kernels.
    torch._inductor.config.conv_1x1_as_mm = True
    with torch.inference_mode():
        complete = Bench(args).run()
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
