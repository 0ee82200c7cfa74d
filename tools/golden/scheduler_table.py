"""The scheduler names of `syntic generate --scheduler`, as diffusers classes and overrides of the model's own config."""

import diffusers

# name -> (class, overrides). DPM-Solver++ 2M and UniPC of order 2 are what these classes default to. PNDM and DDIM get the values of
# Stable Diffusion's own files also where a model's file, being another scheduler's, has none.
SCHEDULERS = {
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler-a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpm++": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpm++-karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
}

# These draw noise at every step, so a comparison must hand both sides the same draws.
STOCHASTIC = ("euler-a", "lcm")


def make_scheduler(name, base):
    """The scheduler `name`, configured as diffusers does when a user swaps it, and the overrides, into a pipeline that has `base`.

    `from_config` drops the values that `base` itself only had by default, so each class keeps its own default spacing.
    """
    if name == "auto":
        return type(base).from_config(base.config)
    cls, overrides = SCHEDULERS[name]
    return cls.from_config(base.config, **overrides)
