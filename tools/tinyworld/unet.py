"""Stage 3: the denoising UNet, told by the text encoder's states what to draw (Rombach et al. 2022)."""

import torch
import torch.nn.functional as F
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from data import KINDS, at_places, kind_weights
from loop import Recipe
from tokenizer import encode

UNCONDITIONAL = 0.1
# Bound on the weight of nearly clean latents, after Hang et al. (2023), who bound the weight of the noise: there very noisy ones would
# count for nothing, from which pictures start.
SNR_BOUND = 5.0
# Weight of the loss beside the denoising one (see `Pupil`).
PLACE_KIND = 0.3


def recipe(steps, seed):
    return Recipe(
        steps=steps, batch=64, learning_rate=2e-3, warmup=min(300, steps // 5), weight_decay=0.0, betas=(0.9, 0.99), ema=0.999, seed=seed,
        matrix_rate=0.02, vectors=("conv_in", "conv_out", "time", "kinds"),
    )  # fmt: skip


def build():
    """4.1 M parameters. A third level at 4x4 costs little time and sees the whole picture; 96 channels are what fits the folder's size."""
    model = UNet2DConditionModel(
        sample_size=16, in_channels=8, out_channels=8, cross_attention_dim=128, block_out_channels=(64, 96, 96), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 3, 3),  # the number of heads, whatever its name: all are 32 wide
        norm_num_groups=16,
    )  # fmt: skip
    # Plain attention: on a CPU the fused one takes three times as long backward at these sizes.
    model.set_attn_processor(AttnProcessor())
    return model


class Pupil(nn.Module):
    """A UNet and a linear reader, which is thrown away when the UNet has learned.

    Colours and backgrounds are most of the squared error, shapes very little: trained by it alone for 100,000 pictures, the UNet draws
    blobs. The reader asks for what to draw where: from the state of each place of 8x8 pixels, after the last attention there, the kind
    of the object, which the scene tells (representations are taught likewise by Yu et al. 2025). Where the noise hides the picture, the
    caption alone tells it.
    """

    def __init__(self, unet):
        super().__init__()
        self.unet = unet
        self.kinds = nn.Linear(unet.config.block_out_channels[-2], len(KINDS) + 1)

    def forward(self, noisy, times, told):
        """The velocity [N, 8, 16, 16], and logits [N, 8, 8, kinds and none]."""
        states = []
        hook = self.unet.up_blocks[1].attentions[-1].register_forward_hook(lambda _module, _inputs, outputs: states.append(outputs[0]))
        velocity = self.unet(noisy, times, told).sample
        hook.remove()
        return velocity, self.kinds(states[0].permute(0, 2, 3, 1))


def scheduler():
    # "trailing" starts at the last training step; "leading" would start one interval before it, where noise is not all there is.
    return DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction", timestep_spacing="trailing",
        steps_offset=1, solver_order=2, algorithm_type="dpmsolver++",
    )  # fmt: skip


@torch.no_grad()
def states(text_encoder, ids):
    return text_encoder(input_ids=ids).last_hidden_state


def loss(latents, kinds, ids, empty, text_encoder, device):
    """`latents` [N, 8, 16, 16]; `kinds` [N, 64, 64] of objects; `ids` [N, 5, 32] of all captions; `empty` [32] of no caption.

    The velocity's squared error (Salimans and Ho 2022), with the weight of nearly clean latents bounded, and what the reader of a
    `Pupil` misses, which counts less the more noise there is.
    """
    alphas = scheduler().alphas_cumprod.to(device)
    weights = kind_weights(device)

    def velocity(pupil, indices, generator):
        which = torch.randint(0, ids.shape[1], (len(indices),), generator=generator)
        dropped = torch.rand(len(indices), generator=generator) < UNCONDITIONAL
        text = torch.where(dropped[:, None], empty, ids[indices, which]).long().to(device)
        clean = latents[indices].to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        times = torch.randint(0, len(alphas), (len(indices),), generator=generator).to(device)
        signal, spread = (x.sqrt()[:, None, None, None] for x in (alphas[times], 1 - alphas[times]))
        target = signal * noise - spread * clean
        found, read = pupil(signal * clean + spread * noise, times, states(text_encoder, text))
        error = (found.float() - target).square().mean((1, 2, 3))
        weight = (1 - alphas[times]).mul(SNR_BOUND + 1).clamp(max=1)  # min(SNR + 1, bound + 1) / (SNR + 1)
        there = at_places(kinds[indices]).to(device)
        missed = F.cross_entropy(read.float().permute(0, 3, 1, 2), there, weight=weights, reduction="none").mean((1, 2))
        missed = (alphas[times].sqrt() * missed).mean()
        return (weight * error).mean() + PLACE_KIND * missed, {"unweighted": error.detach().mean(), "place_kind": missed.detach()}

    return velocity


@torch.no_grad()
def sample(pipeline_parts, captions, guidance, steps=20, seed=0):
    """Pictures [N, 3, 64, 64] in [-1, 1] for captions, in batches of 100. parts: (unet, vae, text_encoder, tokenizer)."""
    unet, vae, text_encoder, tokenizer = pipeline_parts
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(captions), unet.config.in_channels, 16, 16, generator=generator)
    nothing = states(text_encoder, encode(tokenizer, [""]).to(unet.device))
    pictures = []
    for start in range(0, len(captions), 100):
        told = states(text_encoder, encode(tokenizer, captions[start : start + 100]).to(unet.device))
        told = torch.cat([nothing.expand_as(told), told])
        x, solver = noise[start : start + 100].to(unet.device), scheduler()
        solver.set_timesteps(steps)
        for time in solver.timesteps:
            without, with_text = unet(torch.cat([x, x]), time, told).sample.float().chunk(2)
            x = solver.step(without + guidance * (with_text - without), time, x).prev_sample
        pictures.append(vae.decode(x / vae.config.scaling_factor).sample.float().clamp(-1, 1))
    return torch.cat(pictures)
