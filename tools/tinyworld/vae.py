"""Stage 2: the autoencoder between pictures [3, 64, 64] and latents [8, 16, 16]."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor

from loop import Recipe

KL_WEIGHT = 1e-4
EDGE_WEIGHT = 0.5


def recipe(steps, seed):
    return Recipe(
        steps=steps, batch=32, learning_rate=2e-3, warmup=min(100, steps // 5), weight_decay=0.0, betas=(0.9, 0.99), ema=0.99, seed=seed,
        matrix_rate=0.02, vectors=("conv_in", "conv_out", "quant"),
    )  # fmt: skip


def build():
    """0.69 M parameters. Time goes where pixels are: [16, 32, 64] trains 1.6 times as fast as [32, 64, 64]."""
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=(16, 32, 64),
        layers_per_block=1, latent_channels=8, norm_num_groups=8, sample_size=64, scaling_factor=1.0,
    )  # fmt: skip
    model.set_attn_processor(AttnProcessor())
    return model


def loss(split, device):
    """L1 and L2 of the pixels, L1 of their differences to the right and down (edges), and a small divergence of the posterior."""

    def reconstruction(model, indices, generator):
        pixels = split.pixels(indices, device)
        posterior = model.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        error = (model.decode(posterior.mean + posterior.std * noise).sample - pixels).float()
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        squared = error.square().mean()
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
        value = error.abs().mean() + squared + EDGE_WEIGHT * edges + KL_WEIGHT * divergence
        return value, {"mse": squared.detach(), "divergence": divergence.detach()}

    return reconstruction


@torch.no_grad()
def latents(model, split, run, batch=128):
    """Means of the posteriors of all pictures, [N, 8, 16, 16] f32."""
    parts = torch.arange(len(split)).split(batch)
    with run.autocast():
        return torch.cat([model.encode(split.pixels(part, run.device)).latent_dist.mean.float() for part in parts])


@torch.no_grad()
def whiten(model, latents):
    """Gives each latent channel mean 0 and deviation 1 by scaling the two 1x1 convolutions round the latents.

    So scaling_factor is 1, and the generator, which starts from unit noise, sees all channels alike. Returns the new latents.
    """
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    quant, post = model.quant_conv, model.post_quant_conv
    post.bias += (post.weight[:, :, 0, 0] @ mean.to(post.weight)).to(post.bias)
    post.weight *= std[None, :, None, None]
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()
    return (latents - mean[:, None, None]) / std[:, None, None]


@torch.no_grad()
def psnr(model, split, device):
    """Mean over the pictures, in dB, of decoding the mean of the posterior."""
    values = []
    for part in torch.arange(len(split)).split(100):
        pixels = split.pixels(part, device)
        decoded = model.decode(model.encode(pixels.to(model.dtype)).latent_dist.mean).sample.float().clamp(-1, 1)
        values.append(10 * torch.log10(4 / (decoded - pixels).square().mean((1, 2, 3))))
    return torch.cat(values).mean().item()


def evaluate(split, run):
    def figures(model):
        with run.autocast():
            return {"psnr_db": psnr(model, split, run.device)}

    return figures
