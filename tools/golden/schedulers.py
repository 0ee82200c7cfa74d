"""Writes tests/golden/schedulers/schedulers.json: what diffusers' schedulers do with a small latent and a simple model.

    python tools/golden/schedulers.py            # needs diffusers 0.42.1, torch and numpy

The model is m = 0.8 sin(x_in + 0.003 t), with x_in the scaled latent, in f32. Noise of the i-th stochastic step is row
i % 4 of `noise`. Every case holds a configuration file, the name under which it is asked for, the number of steps, the
timesteps, the initial sigma and the latents after some evaluations.
"""

import json
import pathlib
import warnings

import diffusers
import numpy as np
import torch
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "schedulers" / "schedulers.json"
CLASSES = {
    "pndm": diffusers.PNDMScheduler,
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler-a": diffusers.EulerAncestralDiscreteScheduler,
    "dpm++": diffusers.DPMSolverMultistepScheduler,
    "dpm++-karras": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "lcm": diffusers.LCMScheduler,
}
SPACINGS = ["leading", "linspace", "trailing"]

# scheduler_config.json of Stable Diffusion 1.x, and what 2.1 changes.
SD1 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SD2 = SD1 | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}

generator = torch.Generator().manual_seed(0)
LATENT = torch.randn(1, 4, 2, 2, generator=generator)
NOISE = torch.randn(4, 1, 4, 2, 2, generator=generator)
draws = 0


def next_noise(*_, **__):
    global draws
    draws += 1
    return NOISE[(draws - 1) % len(NOISE)]


scheduling_euler_ancestral_discrete.randn_tensor = next_noise
scheduling_lcm.randn_tensor = next_noise


def rounded(values):
    """f32 values as the shortest decimals that give them back."""
    return [float(str(v)) for v in np.asarray(values, np.float32).ravel()]


def run(name, config, steps, stops):
    global draws
    draws = 0
    extra = {"use_karras_sigmas": True} if name == "dpm++-karras" else {}
    cls = getattr(diffusers, config["_class_name"]) if name == "auto" else CLASSES[name]
    scheduler = cls.from_config(dict(config), **extra)
    scheduler.set_timesteps(steps)
    x = LATENT * scheduler.init_noise_sigma
    after = {}
    for i, t in enumerate(scheduler.timesteps):
        x_in = scheduler.scale_model_input(x, t)
        m = 0.8 * torch.sin(x_in + 0.003 * t.to(torch.float32))
        x = scheduler.step(m, t, x, return_dict=False)[0]
        after[i] = x
    if not torch.isfinite(x).all():
        raise ArithmeticError("not finite")
    last = len(scheduler.timesteps) - 1
    return {
        "name": name,
        "config": config,
        "steps": steps,
        "timesteps": rounded(scheduler.timesteps.to(torch.float32)),
        "init_noise_sigma": float(str(np.float32(scheduler.init_noise_sigma))),
        "after": {str(i): rounded(after[i]) for i in sorted({s for s in stops if s < last} | {last})},
    }


def cases():
    """(name, configuration, steps)"""
    overrides = [name for name in CLASSES]
    for config in (SD1, SD2):
        yield "auto", config, 20
        for name in overrides:
            for steps in (1, 2, 3, 4, 5, 10, 20, 50):
                yield name, config, steps
    # Spacings, each with what else decides the ends of the run.
    for name in overrides:
        for spacing in SPACINGS:
            for steps in (4, 7, 30):
                yield name, SD1 | {"timestep_spacing": spacing, "steps_offset": 0, "set_alpha_to_one": True}, steps
    for name, spacing in [("ddim", "trailing"), ("euler", "trailing"), ("dpm++", "linspace"), ("unipc", "linspace"), ("pndm", "linspace")]:
        yield name, SD1 | {"timestep_spacing": spacing}, 1000
    # Beta schedules, a shorter training, zero terminal signal-to-noise ratio.
    for name in overrides:
        yield name, {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "clip_sample": False, "skip_prk_steps": True}, 10
        # With Karras sigmas and this schedule, diffusers meets its first timestep twice and runs past the end.
        if name != "dpm++-karras":
            yield name, SD1 | {"beta_schedule": "squaredcos_cap_v2"}, 10
        yield name, SD2 | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 6
        yield name, SD1 | {"num_train_timesteps": 333}, 9
    for name in ("ddim", "euler", "dpm++", "unipc", "lcm"):
        yield name, SD1 | {"prediction_type": "sample"}, 6
    # Keys of single schedulers.
    sd_pndm = {k: v for k, v in SD1.items() if k != "skip_prk_steps"}
    for prediction in ("epsilon", "v_prediction"):
        for steps in (4, 5, 10, 50):
            yield "pndm", sd_pndm | {"prediction_type": prediction}, steps
    for keys in (
        {"use_karras_sigmas": True},
        {"use_karras_sigmas": True, "timestep_spacing": "trailing", "final_sigmas_type": "sigma_min"},
        {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0},
        {"interpolation_type": "log_linear"},
        {"final_sigmas_type": "sigma_min"},
    ):
        yield "euler", SD1 | keys, 8
    solver_keys = (
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
        {"solver_order": 1},
        {"solver_type": "bh1"},
    )
    for keys in solver_keys:
        for steps in (8, 16):
            yield "dpm++", SD1 | keys, steps
            if keys != {"solver_type": "bh1"}:
                yield "unipc", SD1 | keys, steps
    yield "dpm++", SD1 | {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}, 10
    yield "dpm++", SD1 | {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}, 3
    yield "dpm++", SD1 | {"euler_at_final": True, "final_sigmas_type": "sigma_min"}, 20
    yield "dpm++", SD1 | {"algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min"}, 10
    yield "unipc", SD1 | {"disable_corrector": [0, 3]}, 10
    yield "unipc", SD1 | {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}, 10
    yield "unipc", SD1 | {"solver_type": "midpoint"}, 10
    yield "unipc", SD1 | {"use_karras_sigmas": True}, 25
    yield "lcm", SD1 | {"original_inference_steps": 100, "timestep_scaling": 5.0}, 8
    # `auto` takes the class of the file.
    for name, cls in CLASSES.items():
        if name != "dpm++-karras":
            yield "auto", SD1 | {"_class_name": cls.__name__}, 6


def main():
    assert diffusers.__version__ == "0.42.1", diffusers.__version__
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    done, refused = [], []
    for name, config, steps in cases():
        try:
            done.append(run(name, config, steps, stops=(0, 1, 2)))
        except Exception as error:  # What diffusers cannot do is listed, and must be an error here too.
            refused.append({"name": name, "config": config, "steps": steps, "error": f"{type(error).__name__}: {error}"[:120]})
    made_by = {"diffusers": diffusers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    # Configurations repeat: they are stored once.
    configs = []
    for case in done + refused:
        if case["config"] not in configs:
            configs.append(case["config"])
        case["config"] = configs.index(case["config"])
    golden = {"made_by": made_by, "latent": rounded(LATENT), "noise": [rounded(n) for n in NOISE], "configs": configs}
    text = json.dumps(golden)[:-1]
    rows = lambda cases: "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]"
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(f'{text},\n"cases": {rows(done)},\n"refused": {rows(refused)}}}\n')
    print(OUT, OUT.stat().st_size, "bytes", len(done), "cases;", len(refused), "refused")
    for case in refused:
        print(case)


if __name__ == "__main__":
    main()
