"""The two stages that come before WeGen's own: the tower and the VAE of the miniature.

b pictures · n features (64) · c feature width · s side in pixels

`encoder` stands in for EVA-CLIP's pre-training: a caption contrast, and a linear head that must give the pixels back from the
features, so that they keep detail. Noise on the features before that head keeps their information in few, smooth directions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Embedding, Linear
from torch.nn import functional as F

from ..chat.tokenizer import Tokenizer
from ..config import ModelConfig
from ..data.image_folder import rows
from ..models.decoder import Decoder
from ..models.eva_clip import VisionTower, prepare
from ..train.trainer import Recipe, Stage
from .world.pictures import Pool, caption


def to_float(pictures: np.ndarray) -> Tensor:
    """uint8 (b,s,s,3) to float 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255


class EncoderHeads(nn.Module):
    """The tower, its pixel head, and a bag-of-words text side for the contrast."""

    def __init__(self, config: ModelConfig, words: int):
        super().__init__()
        v = config.vision
        self.tower = VisionTower(v)
        self.pixels = Linear(v.width, 3 * v.patch_size**2)
        self.words = Embedding(words, 128)
        self.text = nn.Sequential(Linear(128, 256), nn.GELU(), Linear(256, 128))
        self.picture = nn.Sequential(Linear(v.width, 256), nn.GELU(), Linear(256, 128))
        self.scale = nn.Parameter(torch.tensor(2.0))
        init_tower(self.tower)


def init_tower(tower: VisionTower, gain: float = 0.15) -> None:
    """Truncated-normal weights, small branch norms (a post-norm tower starts near the identity), sine positions."""
    for module in tower.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
    for block in tower.blocks:
        nn.init.constant_(block.norm1.weight, gain)
        nn.init.constant_(block.norm2.weight, gain)
    nn.init.normal_(tower.cls_token, std=0.02)
    side, width = tower.config.side, tower.config.width
    with torch.no_grad():
        tower.pos_embed[0, 1:] = 0.3 * grid_code(side, width)


def grid_code(side: int, width: int) -> Tensor:
    """(side*side, width): sines and cosines of row and column, row-major."""
    at = torch.arange(side).float() / side
    waves = torch.arange(width // 4) + 1.0
    wave = torch.pi * at[:, None] * waves[None, :] * side / (width // 4) / 2
    code = torch.cat([wave.sin(), wave.cos()], -1)
    grid = torch.cat([code[:, None].expand(-1, side, -1), code[None].expand(side, -1, -1)], -1).reshape(side * side, -1)
    return F.pad(grid, (0, width - grid.shape[1]))


def patches(images: Tensor, patch: int) -> Tensor:
    """(b,s,s,3) -> (b, n, patch*patch*3), row-major like the tower's tokens."""
    b, s, _, _ = images.shape
    g = s // patch
    return images.view(b, g, patch, g, patch, 3).permute(0, 1, 3, 2, 4, 5).reshape(b, g * g, -1)


def encoder_stage(
    config: ModelConfig,
    pool: Pool,
    tokenizer: Tokenizer,
    steps: int,
    seed: int = 0,
    batch: int = 24,
    noise: float = 0.25,
    contrast: float = 0.1,
) -> Stage:
    """Caption contrast (scenes only) and pixel error through noisy features."""
    model = EncoderHeads(config, tokenizer.size)
    texts = [tokenizer.encode(caption(scene)) for scene in pool.scenes]
    total, named = len(pool.pictures), len(pool.scenes)

    def make(step: int):
        # half named scenes (they have captions), half free pictures
        picks = np.concatenate([rows(1, step, batch // 2, named), named + rows(2, step, batch - batch // 2, total - named)])
        return to_float(pool.pictures[picks]), [texts[i] for i in picks[: batch // 2]]

    def loss(data, generator):
        images, captions = data
        tokens = model.tower(prepare(images, config.vision))
        scale = tokens.detach().std((0, 1)).norm() / tokens.shape[-1] ** 0.5
        noisy = tokens + noise * scale * torch.randn(tokens.shape, generator=generator)
        target = patches(images, config.vision.patch_size)
        mse = F.mse_loss(model.pixels(noisy), target)
        seen = F.normalize(model.picture(tokens[: len(captions)].mean(1)), dim=-1)
        flat = torch.tensor([i for ids in captions for i in ids])
        offsets = torch.tensor([0] + [len(ids) for ids in captions][:-1]).cumsum(0)
        said = F.normalize(model.text(F.embedding_bag(flat, model.words.weight, offsets, mode="mean")), dim=-1)
        logits = seen @ said.T * model.scale.exp().clamp(max=50)
        same = torch.tensor([[a == b for b in captions] for a in captions]).float()
        goal = same / same.sum(1, keepdim=True)
        contrastive = (F.cross_entropy(logits, goal) + F.cross_entropy(logits.T, goal)) / 2
        # keep the scale of the features near 1, so that the noise means something
        spread = (scale - 1).square()
        psnr = -10 * mse.detach().log10()
        return {
            "loss": 10 * mse + contrast * contrastive + 0.1 * spread,
            "mse": mse.detach(),
            "psnr": psnr,
            "contrast": contrastive.detach(),
            "scale": scale,
        }

    recipe = Recipe(steps, 1.5e-3, weight_decay=0.01, warmup=200, clip=1.0, ema=0.995, save_every=250, seed=seed)
    return Stage("encoder", model, make, loss, recipe)


def vae_stage(config: ModelConfig, pool: Pool, steps: int, seed: int = 0, batch: int = 8, crop: int = 64, noise: float = 0.05) -> Stage:
    """The autoencoder on crops: L1, squared and gradient error; a little noise and a pull to zero keep the latents smooth."""
    vae = Decoder(config.decoder, {}, config.vae, config.scheduler).vae
    total, size = len(pool.pictures), pool.pictures.shape[1]

    def make(step: int):
        picks = rows(3, step, batch, total)
        at = np.random.default_rng((4, seed, step)).integers(0, (size - crop) // 8 + 1, (batch, 2)) * 8
        return to_float(np.stack([pool.pictures[i][y : y + crop, x : x + crop] for i, (y, x) in zip(picks, at)]))

    def loss(images, generator):
        pixels = (images * 2 - 1).movedim(-1, 1)
        latents = vae.encode(pixels).latent
        noisy = latents + noise * latents.detach().std() * torch.randn(latents.shape, generator=generator)
        error = vae.decode(noisy).sample - pixels
        edges = sum(error.diff(dim=d).abs().mean() for d in (-1, -2))
        mse = error.square().mean()
        psnr = -10 * (mse.detach() / 4).log10()
        return {
            "loss": error.abs().mean() + 2 * mse + 0.5 * edges + 1e-3 * latents.square().mean(),
            "mse": mse.detach(),
            "psnr": psnr,
            "std": latents.detach().std(),
        }

    recipe = Recipe(steps, 1e-3, (0.9, 0.95), warmup=50, clip=1.0, ema=0.995, save_every=250, seed=seed)
    return Stage("vae", vae, make, loss, recipe)


def vae_decoder_stage(
    vae: nn.Module,
    pictures: np.ndarray,
    latents: Tensor,
    named: int,
    steps: int,
    seed: int = 0,
    painted: tuple[Tensor, list[int]] | None = None,
    batch: int = 8,
    cells: int = 10,
    noise: float = 0.03,
) -> Stage:
    """The autoencoder's decoder alone goes on, under latents (m,k,h,w) that stay as they are, and with them a UNet trained on them.

    Crops of `cells` latent cells, of three the one with most in it; what lies less than a cell inside them has no context and does
    not count. `named`: scenes before free pictures. `painted`: latents (p,k,h,w) that the UNet denoised and the rows they aim at: they
    make half of each batch, so that the decoder mends what the UNet leaves soft.
    """
    total, side, spread = len(pictures), latents.shape[-1], latents[:1000].float().std()
    vae.requires_grad_(False)
    vae.decoder.to(memory_format=torch.channels_last).requires_grad_(True)

    def make(step: int):
        picks = np.concatenate([rows(8, step, batch * 3 // 4, named), named + rows(9, step, batch - batch * 3 // 4, total - named)])
        rng = np.random.default_rng((10, seed, step))
        tries = rng.integers(0, side - cells + 1, (batch, 3, 2))
        made = rng.integers(0, len(painted[1]), batch // 2) if painted else ()
        picks[: len(made)] = [painted[1][i] for i in made]
        seen, codes, inside = [], [], torch.zeros(batch, 1, cells * 8, cells * 8)
        for b, row in enumerate(picks):
            crops = [pictures[row][y * 8 : (y + cells) * 8, x * 8 : (x + cells) * 8] for y, x in tries[b]]
            most = max(range(3), key=lambda i: crops[i].std((0, 1)).sum())
            y, x = tries[b, most]
            seen.append(crops[most])
            code = painted[0][made[b]] if b < len(made) else latents[row]
            codes.append(code[:, y : y + cells, x : x + cells].float())
            top, left = 8 * (y > 0), 8 * (x > 0)
            bottom, right = cells * 8 - 8 * (y + cells < side), cells * 8 - 8 * (x + cells < side)
            inside[b, :, top:bottom, left:right] = 1
        return (to_float(np.stack(seen)) * 2 - 1).movedim(-1, 1), torch.stack(codes), inside

    def loss(data, generator):
        pixels, codes, inside = data
        error = (vae.decode(codes + noise * spread * torch.randn(codes.shape, generator=generator)).sample - pixels) * inside
        count = inside.sum() * 3
        edges = sum(error.diff(dim=d).abs().sum() for d in (-1, -2)) / count
        mse = error.square().sum() / count
        return {"loss": error.abs().sum() / count + 2 * mse + 0.5 * edges, "mse": mse.detach(), "psnr": -10 * (mse.detach() / 4).log10()}

    recipe = Recipe(steps, 6e-4, (0.9, 0.95), warmup=50, clip=1.0, ema=0.995, save_every=250, seed=seed)
    return Stage("vae-decoder", vae, make, loss, recipe)
