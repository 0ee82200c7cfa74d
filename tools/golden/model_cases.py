"""The small models of tests/golden: configurations as published checkpoints spell them, with small numbers.

Keys of a case besides the component configs:
    seed, storage (dtype of the weight files), variant (file name infix such as fp16, or "")
    text_names   "prefixed": `text_model.` and position ids, as old files; "flat": as transformers saves since 5.6
    vae_names    "new": to_q ...; "old": query ...; "old-conv": the same shaped [C, C, 1, 1]
    latents, vae_latents (height, width of the inputs), context_length
"""

VOCAB = 1000
BOS, EOS = VOCAB - 2, VOCAB - 1

# Scheduler files as Stable Diffusion 1.x and 2.1 publish them: neither names a timestep spacing.
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
SD_SCHEDULER = {**SD_BETAS, "trained_betas": None, "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
SD1_SCHEDULER = {"_class_name": "PNDMScheduler", **SD_SCHEDULER, "steps_offset": 1}
SD2_SCHEDULER = {"_class_name": "DDIMScheduler", **SD_SCHEDULER, "steps_offset": 1, "prediction_type": "v_prediction"}

TEXT = {
    "vocab_size": VOCAB,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
}

UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "act_fn": "silu",
    "center_input_sample": False,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
}

VAE = {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "act_fn": "silu"}

CASES = {
    # Stable Diffusion 1.x: quick_gelu, convolutional projections, one head count, epsilon; all the old tensor names.
    "sd1-tiny": {
        "seed": 1,
        "storage": "float32",
        "variant": "",
        "text_names": "prefixed",
        "vae_names": "old",
        "latents": (8, 12),
        "vae_latents": (3, 2),
        "context_length": 77,
        "text_encoder": {
            **TEXT,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "hidden_act": "quick_gelu",
            "pad_token_id": EOS,
        },
        "unet": {
            **UNET,
            "sample_size": 8,
            "attention_head_dim": 4,  # the number of heads, whatever it is called
            "block_out_channels": [16, 16, 24],
            "cross_attention_dim": 32,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "layers_per_block": 2,
            "norm_num_groups": 8,
        },
        # No scaling_factor, as in the oldest files: 0.18215 is meant.
        "vae": {
            **VAE,
            "block_out_channels": [8, 8, 12, 16],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "layers_per_block": 2,
            "norm_num_groups": 4,
            "sample_size": 64,
        },
        "scheduler": SD1_SCHEDULER,
    },
    # Stable Diffusion 2.1: gelu, linear projections, heads per block, v_prediction, four levels; f16 files, flat text names.
    "sd2-tiny": {
        "seed": 2,
        "storage": "float16",
        "variant": "fp16",
        "text_names": "flat",
        "vae_names": "new",
        "latents": (16, 8),
        "vae_latents": (2, 3),
        "context_length": 77,
        "text_encoder": {
            **TEXT,
            "hidden_size": 40,
            "intermediate_size": 90,
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "hidden_act": "gelu",
            "pad_token_id": 0,
        },
        "unet": {
            **UNET,
            "sample_size": 16,
            "attention_head_dim": [2, 4, 3, 3],
            "block_out_channels": [16, 16, 24, 24],
            "cross_attention_dim": 40,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
            "layers_per_block": 2,
            "norm_num_groups": 8,
            "dual_cross_attention": False,
            "num_class_embeds": None,
            "only_cross_attention": False,
            "upcast_attention": True,
            "use_linear_projection": True,
        },
        "vae": {
            **VAE,
            "block_out_channels": [8, 8, 16, 16],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "layers_per_block": 2,
            "norm_num_groups": 4,
            "sample_size": 128,
            "scaling_factor": 0.18215,
        },
        "scheduler": SD2_SCHEDULER,
    },
    # Widths that no vector divides, heads of 5, 10 and 40, one layer per block, a plain block first, sides that three
    # halvings do not divide (so upsampling must aim at the size of the skip), bf16 files, a VAE of factor 2.
    "odd": {
        "seed": 3,
        "storage": "bfloat16",
        "variant": "",
        "vae_names": "old-conv",
        "latents": (13, 9),
        "vae_latents": (5, 3),
        "context_length": 11,
        "unet": {
            **UNET,
            "norm_eps": 1e-6,
            "sample_size": 16,
            "attention_head_dim": [1, 4, 2, 1],
            "block_out_channels": [12, 20, 20, 40],
            "cross_attention_dim": 28,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
        "vae": {
            **VAE,
            "block_out_channels": [12, 20],
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "sample_size": 32,
            "scaling_factor": 0.5,
        },
    },
}
