"""Times one network pass on the CPU: syntic beside diffusers and OpenVINO, alternating, on the same number of threads.

    python tools/peers/unet_step.py --model DIR --syntic target/release/syntic              # a guidance step at 512 x 512
    python tools/peers/unet_step.py --model DIR --syntic target/release/syntic --part vae --engines diffusers-f32 syntic-f32

Parts: `unet` is one guidance step (batch of 2), `vae` decodes one image, `text` encodes two prompts. Every engine is a
process of its own: the Python ones load once and then wait for their turn, syntic starts anew each round (`syntic bench`
loads and warms up before it times). Loading is never counted. A round runs every engine once; ratios are taken to
diffusers-f32 of the same round, and the median over rounds is what counts. Rounds during which other programs used more
than a tenth of a core are left out, as long as three quiet ones remain. Peak memory is that of the whole process.
OpenVINO engines need a converted model, written once into `--cache` (default: target/openvino).
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

ENGINES = ["diffusers-f32", "diffusers-bf16", "openvino-f32", "openvino-bf16", "syntic-f32", "syntic-bf16"]
BASELINE = "diffusers-f32"
BUSY_CORES = 0.1


def peak_mib():
    """Largest resident size of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def machine_seconds():
    """CPU time that all programs of this machine have used since it started."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def torch_part(model, part, size, dtype):
    """The network as a torch module that takes plain tensors, and its inputs."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    folder = {"unet": "unet", "vae": "vae", "text": "text_encoder"}[part]
    cls = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text": CLIPTextModel}[part]
    files = list((Path(model) / folder).glob("*.safetensors"))
    variant = "fp16" if files and all(".fp16" in path.name for path in files) else None
    network = cls.from_pretrained(model, subfolder=folder, variant=variant, dtype=dtype, local_files_only=True).eval()
    rng = torch.Generator().manual_seed(1)

    class Pass(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, *inputs):
            if part == "unet":
                return self.network(*inputs, return_dict=False)[0]
            if part == "vae":
                return self.network.decode(*inputs, return_dict=False)[0]
            return self.network(*inputs, return_dict=False)[0]

    if part == "text":
        inputs = (torch.randint(0, network.config.vocab_size, (2, network.config.max_position_embeddings), generator=rng),)
    else:
        factor = 8 if part == "unet" else 2 ** (len(network.config.block_out_channels) - 1)
        batch = 2 if part == "unet" else 1
        inputs = (torch.randn((batch, 4, size // factor, size // factor), generator=rng).to(dtype),)
    if part == "unet":
        context = torch.randn((2, 77, network.config.cross_attention_dim), generator=rng).to(dtype)
        inputs += (torch.tensor(500), context)
    return Pass(), inputs


def converted(args):
    """Path of the OpenVINO model for these settings."""
    return Path(args.cache) / f"{Path(args.model).resolve().name}-{args.part}-{args.size}.xml"


def convert(args):
    """Writes the OpenVINO model: its own process, so that its memory is not counted as OpenVINO's."""
    import openvino
    import torch

    warnings.simplefilter("ignore")  # tracing warns about every shape check
    module, inputs = torch_part(args.model, args.part, args.size, torch.float32)
    with torch.inference_mode():
        model = openvino.convert_model(module, example_input=inputs, input=[tuple(value.shape) for value in inputs])
    converted(args).parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(model, converted(args), compress_to_fp16=False)


def load_engine(args):
    """A function that runs one pass."""
    library, dtype = args.worker.split("-")
    if library == "diffusers":
        import torch

        torch.set_num_threads(args.threads)
        module, inputs = torch_part(args.model, args.part, args.size, {"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
        if dtype == "bf16":
            module = module.to(memory_format=torch.channels_last)
            inputs = tuple(v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for v in inputs)

        def run():
            with torch.inference_mode():
                return float(module(*inputs).float().abs().mean())

        return run
    import numpy
    import openvino

    options = {"INFERENCE_NUM_THREADS": args.threads, "INFERENCE_PRECISION_HINT": dtype, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(converted(args), "CPU", options)
    rng = numpy.random.default_rng(1)
    inputs = []
    for port in model.inputs:
        shape = tuple(port.shape)
        if not port.element_type.is_real() or not shape:
            inputs.append(numpy.full(shape, 500, port.element_type.to_dtype()))
        else:
            inputs.append(rng.standard_normal(shape).astype(port.element_type.to_dtype()))
    request = model.create_infer_request()
    return lambda: float(numpy.abs(next(iter(request.infer(inputs).values()))).mean())


def work(args):
    """The loop of an engine's process: one warm pass, then one pass for each line read."""
    run = load_engine(args)
    run()
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        value = run()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        if not value == value:
            raise SystemExit("the output is not a number")
        print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mib": peak_mib()}), flush=True)


class PythonEngine:
    """A loaded engine in its own process."""

    def __init__(self, name, args):
        command = [sys.executable, __file__, "--worker", name, "--model", args.model, "--part", args.part]
        command += ["--size", str(args.size), "--threads", str(args.threads), "--cache", str(args.cache)]
        environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"an engine ended with exit code {self.process.wait()}; its message is above")
        return json.loads(line)

    def measure(self):
        """Seconds of one pass, peak MiB, CPU seconds used."""
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        answer = self.answer()
        return answer["seconds"], answer["peak_mib"], answer["cpu"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class SynticEngine:
    """`syntic bench`, a new process each round."""

    def __init__(self, name, args):
        self.command = [args.syntic, "bench", args.part, "--model", args.model, "--dtype", name.split("-")[1], "--json"]
        self.command += ["--threads", str(args.threads), "--reps", "2", "--warmup", "1"]
        if args.part == "text":
            self.command += ["--batch", "2"]
        else:
            self.command += ["--batch", "1", "--size", str(args.size)]
        self.command += ["--guidance"] if args.part == "unet" else []

    def measure(self):
        """Median seconds of its passes, peak MiB, CPU seconds of the whole process."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(self.command, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(self.command)}\nexit code {result.returncode}\n{result.stderr}")
        rows = json.loads(result.stdout)["results"]
        if len(rows) != 1:
            raise SystemExit(f"{' '.join(self.command)}: expected one result, found {len(rows)}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return rows[0]["median_s"], rows[0]["peak_mib"], cpu

    def close(self):
        pass


def report(names, times, peaks):
    """A table of medians; ratios are medians of the ratios inside each round."""
    print(f"\n{'engine':<16}{'median s':>10}{'spread':>9}{'ratio':>8}{'min..max':>14}{'peak MiB':>10}")
    for name in names:
        row = f"{name:<16}{statistics.median(times[name]):>10.3f}"
        row += f"{(max(times[name]) - min(times[name])) / statistics.median(times[name]):>9.1%}"
        if BASELINE in times:
            ratios = [mine / base for mine, base in zip(times[name], times[BASELINE])]
            row += f"{statistics.median(ratios):>8.3f}{f'{min(ratios):.2f}..{max(ratios):.2f}':>14}"
        else:
            row += f"{'-':>8}{'-':>14}"
        print(row + f"{max(peaks[name]):>10.0f}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--syntic", help="the binary; without it syntic is left out")
    parser.add_argument("--part", choices=["unet", "vae", "text"], default="unet")
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="default: every one that can run here")
    parser.add_argument("--cache", default=Path(__file__).parents[2] / "target/openvino", help="converted OpenVINO models")
    parser.add_argument("--at-most", type=float, metavar="RATIO", help="fail where syntic-f32 takes more than this ratio")
    parser.add_argument("--json", type=Path, help="also write every time to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--convert", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def runnable(args):
    """The engines asked for, or all that can run here."""
    openvino = importlib.util.find_spec("openvino") is not None
    absent = [] if args.syntic else ["syntic"]
    absent += [] if openvino else ["openvino"]
    available = [name for name in ENGINES if name.split("-")[0] not in absent]
    missing = [name for name in args.engines or [] if name not in available]
    if missing:
        raise SystemExit(f"cannot run {', '.join(missing)}: give --syntic PATH, or install openvino")
    names = args.engines or available
    if args.at_most is not None and not {"syntic-f32", BASELINE} <= set(names):
        raise SystemExit(f"--at-most compares syntic-f32 with {BASELINE}: both must run")
    return names


def main():
    args = parse()
    if args.worker:
        return work(args)
    if args.convert:
        return convert(args)
    names = runnable(args)
    if any(name.startswith("openvino") for name in names) and not converted(args).exists():
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--convert"], check=True)
    engines = {name: (SynticEngine if name.startswith("syntic") else PythonEngine)(name, args) for name in names}
    times, peaks, busy = {name: [] for name in names}, {name: [] for name in names}, []
    for number in range(args.rounds):
        start, used, own = time.perf_counter(), machine_seconds(), 0.0
        for name, engine in engines.items():
            seconds, peak, cpu = engine.measure()
            own += cpu
            times[name].append(seconds)
            peaks[name].append(peak)
        busy.append((machine_seconds() - used - own) / (time.perf_counter() - start))
        row = "  ".join(f"{name} {times[name][-1]:.3f}" for name in names)
        print(f"round {number + 1}: {row}  (others: {max(busy[-1], 0):.2f} cores)", flush=True)
    for engine in engines.values():
        engine.close()
    if args.json:
        raw = {"settings": vars(args) | {"json": str(args.json)}, "seconds": times, "peak_mib": peaks, "busy_cores": busy}
        args.json.write_text(json.dumps(raw, indent=2, default=str) + "\n")
    quiet = [number for number, cores in enumerate(busy) if cores <= BUSY_CORES]
    if 3 <= len(quiet) < len(busy):
        print(f"{len(busy) - len(quiet)} rounds with busy neighbours left out")
        times = {name: [values[number] for number in quiet] for name, values in times.items()}
    report(names, times, peaks)
    if args.at_most is not None:
        ratio = statistics.median(mine / base for mine, base in zip(times["syntic-f32"], times[BASELINE]))
        print(f"syntic-f32 takes {ratio:.3f} of {BASELINE} (at most {args.at_most})")
        return 0 if ratio <= args.at_most else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
