"""What a model is made of: dataclasses with one comment a field, and the table of presets.

Sources: the public WeGen configuration (tower of EVA-02-CLIP-E/14+ at 448 px, LLaMA-2-7B with 32330 tokens, an SDXL UNet
with cross-attention 1792 and an added condition of 3328) and this project's miniature. Fields marked "miniature" are off in the public checkpoints.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import bounds
from .fileio import from_dict

if TYPE_CHECKING:
    import torch

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class VisionConfig:
    """The EVA-CLIP tower: a post-norm ViT whose raw last block is the feature map."""

    image_size: int = 448  # pixels, square
    patch_size: int = 14
    width: int = 1792
    layers: int = 64
    heads: int = 16  # of 112 each
    mlp_width: int = 15360
    eps: float = 1e-6
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __post_init__(self):
        bounds.check_vision(self)

    @property
    def side(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    def bytes(self, pictures: int, dtype: torch.dtype) -> int:
        """What looking at so many pictures at once holds beside the weights: one block's activations."""
        return pictures * (1 + self.side**2) * (2 * self.mlp_width + 4 * self.width) * dtype.itemsize


@dataclass(frozen=True)
class LanguageConfig:
    """The LLaMA body. Widths are read from weights where possible; heads and eps cannot be."""

    vocab_size: int = 32330
    width: int = 4096
    layers: int = 32
    heads: int = 32
    mlp_width: int = 11008
    eps: float = 1e-5
    rope_theta: float = 10000.0
    positions: int = 4096  # longest conversation, in tokens

    def __post_init__(self):
        bounds.check_language(self)

    def bytes(self, tokens: int, dtype: torch.dtype) -> int:
        """What reading so many tokens at once holds beside weights and cache: one layer's activations, the mask, one row of logits."""
        return tokens * (4 * self.mlp_width + 8 * self.width) * dtype.itemsize + tokens**2 + self.vocab_size * 4


@dataclass(frozen=True)
class FeatureConfig:
    """The features that tower, language model and decoder share."""

    space: str = "eva-e-plus@448/8x8x1792"  # name of the space; a mismatch is an error
    tower: str = "emu2-448"  # which tower made them; a mismatch is a warning
    grid: tuple[int, int] = (8, 8)  # rows, columns
    width: int = 1792
    normalised: bool = False  # miniature: z-scored between tower and language model
    slot_embedding: bool = False  # miniature: <img_i> embeddings added to the features fed in
    pointer: bool = False  # miniature: a written feature may point at the same slot of pictures shown (models/pointer.py)
    pointer_blocks: int = 0  # miniature: residual blocks between what is pointed at and what is made of it
    regions: bool = False  # miniature: slots get an embedding of the box that covers them (models/box_embedding.py)
    parallel: bool = False  # were the weights trained to write all features at once from placeholders?

    def __post_init__(self):
        bounds.check_features(self)

    @property
    def count(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class DecoderConfig:
    """How features condition the UNet; the UNet, VAE and scheduler have diffusers configurations of their own."""

    space: str = "eva-e-plus@448/8x8x1792"
    tower: str = "emu2-448"
    width: int = 1792
    grid: tuple[int, int] = (8, 8)
    time_ids: str = "size"  # one of TIME_IDS
    negative: str = "zeros"  # the unconditional input: one of NEGATIVES
    guidance_scale: float = 6.0
    steps: int = 50
    size: int = 1024  # pixels, the side the UNet was trained at
    layout_channels: int = 0  # miniature: the tokens laid out on the latent grid as extra UNet input channels
    layout_factor: int = 2  # latent cells along one side of a token's cell
    preset: str = "wegen"  # name of the InferencePreset whose settings it has
    latent_rgb: tuple[tuple[float, ...], ...] = ()  # (k+1,3): latent channels to RGB in 0..1 for previews, last row the bias

    def __post_init__(self):
        bounds.check_decoder(self, TIME_IDS, NEGATIVES)


# --- choices that nodes, command line and code share: one table each -------------------------------------------------


@dataclass(frozen=True)
class Negative:
    """An unconditional input: its label in nodes, what it is in a few words, and in full."""

    label: str
    short: str
    text: str


NEGATIVES = {
    "zeros": Negative("zeros", "zeros", "zeros"),
    "blank": Negative("blank picture", "the features of a blank picture", "the features of a blank picture (all zero once normalised)"),
}
# six numbers beside the features: original height and width, crop from the top and left, height and width to paint
TIME_IDS = {
    "size": "the picture's size twice, as WeGen's inference does",
    "trained": "the trained size, then the picture's, as Emu2 does",
    "zeros": "six zeros, as the release trains",
}
# samplers: label in nodes -> diffusers' class
SAMPLERS = {
    "euler": "EulerDiscreteScheduler",
    "euler ancestral": "EulerAncestralDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "dpm++ 2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddpm": "DDPMScheduler",
}
# precisions that tower and language model can be quantized to (models/quantization.py has their arithmetic)
QUANTIZATIONS = ("q8_0", "q4_0", "fp8")


def check_kind(name: str) -> str:
    """The format's name in capitals; empty stays empty.

    Raises:
        ValueError: no format that can be made.
    """
    if name and name.upper() not in [kind.upper() for kind in QUANTIZATIONS]:
        raise ValueError(f"quantisation {name!r} is not one of {', '.join(QUANTIZATIONS)}.")
    return name.upper()


@dataclass(frozen=True)
class ModelConfig:
    """A whole model. Components may be absent, and with them what they do."""

    name: str = "wegen-7b"
    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    unet: dict[str, Any] = field(default_factory=dict)  # diffusers UNet2DConditionModel
    vae: dict[str, Any] = field(default_factory=dict)  # diffusers AutoencoderKL
    scheduler: dict[str, Any] = field(default_factory=dict)  # diffusers, with _class_name
    memory: int = 0  # earlier exchanges that a prompt carries; 0: all of the conversation
    refuses: bool = False  # does it say in words that it cannot draw something? Then picture "always" lets such an answer stand
    references: str = "whole"  # how pictures with boxes are shown: "whole", or "placed" in their box (miniature; chat/reference_cutout.py)
    knows: str = ""  # one sentence for tooltips: what was it trained on?
    concepts: tuple[str, ...] = ()  # the words a small model can draw; empty: open vocabulary

    def __post_init__(self):
        if self.memory < 0:
            raise ValueError(f"memory is {self.memory}, not a number of exchanges (0: all)")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Read what `to_dict` wrote. ValueError: unknown keys, or a value of another type than its field's; it names them."""
        return from_dict(cls, values, "config.json", ignore=("format_version",))


# --- diffusers configurations -------------------------------------------------------------------------------------


SDXL_UNET: dict[str, Any] = dict(
    sample_size=128,
    in_channels=4,
    out_channels=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(320, 640, 1280),
    layers_per_block=2,
    transformer_layers_per_block=(1, 2, 10),
    attention_head_dim=(5, 10, 20),
    cross_attention_dim=1792,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=3328,
)
SDXL_VAE: dict[str, Any] = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    sample_size=1024,
    scaling_factor=0.13025,
    force_upcast=True,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    norm_num_groups=32,
    act_fn="silu",
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
)
SDXL_SCHEDULER: dict[str, Any] = dict(
    _class_name="EulerDiscreteScheduler",
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    prediction_type="epsilon",
    timestep_spacing="leading",
    steps_offset=1,
)

# the miniature: 128 px, features 8x8x192, latents 16x16x16
MINI_UNET: dict[str, Any] = dict(
    sample_size=16,
    in_channels=32,
    out_channels=16,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(96, 160),
    layers_per_block=1,
    transformer_layers_per_block=(1, 1),
    attention_head_dim=(3, 5),
    cross_attention_dim=192,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=192 + 6 * 256,
)
MINI_VAE: dict[str, Any] = dict(
    _class_name="AutoencoderDC",  # space-to-depth shortcuts: learns on a CPU in minutes, where AutoencoderKL needs hours
    in_channels=3,
    latent_channels=16,
    scaling_factor=1.0,
    encoder_block_types="ResBlock",
    decoder_block_types="ResBlock",
    encoder_block_out_channels=(32, 64, 128, 128),
    decoder_block_out_channels=(32, 64, 128, 128),
    encoder_layers_per_block=(0, 1, 1, 1),
    decoder_layers_per_block=(0, 1, 1, 1),
    encoder_qkv_multiscales=((), (), (), ()),
    decoder_qkv_multiscales=((), (), (), ()),
    upsample_block_type="pixel_shuffle",
    downsample_block_type="pixel_unshuffle",
    decoder_norm_types="rms_norm",
    decoder_act_fns="silu",
)
MINI_SCHEDULER: dict[str, Any] = dict(
    _class_name="DDIMScheduler",
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    prediction_type="v_prediction",
    timestep_spacing="trailing",
    rescale_betas_zero_snr=True,
    clip_sample=False,
    set_alpha_to_one=True,
)
# a few thousand weights, for tests: the sizes of the golden tensors
TINY_UNET: dict[str, Any] = dict(
    sample_size=16,
    in_channels=4,
    out_channels=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(32, 64),
    layers_per_block=2,
    transformer_layers_per_block=(1, 2),
    attention_head_dim=(2, 4),
    cross_attention_dim=32,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=80,
)
TINY_VAE: dict[str, Any] = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    sample_size=32,
    scaling_factor=0.13025,
    block_out_channels=(32, 64),
    layers_per_block=1,
    norm_num_groups=32,
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
)

_MINI_SPACE = "wegen-mini/8x8x192"

PRESETS: dict[str, ModelConfig] = {
    "wegen-7b": ModelConfig(unet=SDXL_UNET, vae=SDXL_VAE, scheduler=SDXL_SCHEDULER),
    "wegen-mini": ModelConfig(
        name="wegen-mini",
        vision=VisionConfig(image_size=128, patch_size=16, width=192, layers=5, heads=6, mlp_width=512),
        language=LanguageConfig(vocab_size=0, width=256, layers=4, heads=4, mlp_width=704, positions=1024),
        memory=1,
        references="placed",
        features=FeatureConfig(
            _MINI_SPACE,
            _MINI_SPACE,
            width=192,
            normalised=True,
            slot_embedding=True,
            pointer=True,
            pointer_blocks=3,
            regions=True,
            parallel=True,
        ),
        decoder=DecoderConfig(_MINI_SPACE, _MINI_SPACE, width=192, guidance_scale=1.5, steps=6, size=128, layout_channels=16),
        unet=MINI_UNET,
        vae=MINI_VAE,
        scheduler=MINI_SCHEDULER,
    ),
    "tiny": ModelConfig(
        name="tiny",
        vision=VisionConfig(width=32, layers=2, heads=4, mlp_width=64),
        language=LanguageConfig(width=32, layers=2, heads=4, mlp_width=64, eps=1e-6, positions=1024),
        features=FeatureConfig("tiny/8x8x32", "tiny", width=32),
        decoder=DecoderConfig("tiny/8x8x32", "tiny", width=32, size=32),
        unet=TINY_UNET,
        vae=TINY_VAE,
        scheduler=SDXL_SCHEDULER,
    ),
}
