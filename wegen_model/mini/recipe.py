"""The whole recipe of the miniature, stage by stage, each resumable: `wegen mini train`.

    tokenizer - encoder - (features) - stage-1 - stage-2 -+
                vae ----- (latents) -- visual-decoding -- sharpen -- vae-decoder - export

`stage-1` learns every task, `stage-2` goes on with more of the harder ones. With a start folder, tower, decoder and writer
come from an earlier miniature, and the recipe begins at `stage-1`; size `further` is a round of `stage-2`, `sharpen` and
`vae-decoder` from there.

Stages find what earlier ones left in the work folder, so two processes may run two stages that do not need one another.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..chat.tokenizer import Tokenizer
from ..checkpoint import model_folder
from ..config import PRESETS, ModelConfig
from ..models.decoder import Decoder
from ..runtime import Runtime
from ..train.trainer import Recipe, Stage, finished, run
from .dialogue import Bank, LanguageModule, Options, dialogue_stage, encode_pictures
from .stages import EncoderHeads, encoder_stage, vae_decoder_stage, vae_stage
from .start import load_decoder, load_tower, load_writer
from .tasks import HARDER, MIX
from .tokenizer import build_tokenizer
from .visual import DecoderModule, encode_latents, init_layout, keep, paint_latents, preview_factors, visual_stage
from .watch import Watch
from .world.art import cache_dir, load_art
from .world.concepts import NAMES, OFFERED_STYLES, TRAINED_STYLES
from .world.pictures import Pool, build_pool

STAGES = ("encoder", "vae", "visual-decoding", "stage-1", "stage-2", "sharpen", "vae-decoder", "export")
KNOWS = (
    f"{len(NAMES)} things in {len(OFFERED_STYLES)} styles of drawing ({', '.join(OFFERED_STYLES)}), on 16 plain colours; "
    "pictures you show it may hold anything drawn"
)
MADE_BY_START = ("encoder", "vae", "visual-decoding")  # stages that a start folder replaces


@dataclass(frozen=True)
class Size:
    """How much of everything: one preset of the recipe."""

    samples: int  # conversations of the writer's stages
    pictures: int  # conversations whose pictures teach tower, VAE and UNet
    frees: int  # pictures beyond the scenes
    encoder: int  # steps of each stage
    vae: int
    visual: int
    writer: int
    harder: int
    sharpen: int
    finish: int  # of the VAE's decoder
    look: int  # steps of the writer's stages between two looks at what it rolls out
    options: Options = Options()


SIZES = {
    "cpu": Size(30_000, 16_000, 8_000, 3000, 4000, 2600, 5000, 6000, 1000, 2500, 1000),  # 2 cores, an evening
    "further": Size(20_000, 6_000, 3_000, 0, 0, 0, 0, 8000, 4500, 4500, 2000),  # from a start: three hours on a core
    "test": Size(60, 60, 20, 4, 4, 4, 4, 4, 4, 4, 0, Options(tokens=300)),  # seconds: does it run?
}


class Workshop:
    """The recipe's state: its work folder and what is made in it."""

    def __init__(
        self,
        folder: str | Path,
        size: str = "cpu",
        runtime: Runtime | None = None,
        seed: int = 0,
        art=None,
        start: str | Path | None = None,
    ):
        self.folder, self.size, self.seed = Path(folder), SIZES[size], seed
        self.runtime = runtime or Runtime(progress=True)
        self.start = Path(start) if start else None
        self._art = art

    @cached_property
    def art(self):
        return self._art or load_art(TRAINED_STYLES, runtime=self.runtime)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        place = self.folder / "tokenizer"
        if not (place / "tokenizer.json").is_file():
            build_tokenizer(place)
        return Tokenizer.load(place)

    @cached_property
    def config(self) -> ModelConfig:
        config = PRESETS["wegen-mini"]
        return dataclasses.replace(config, language=dataclasses.replace(config.language, vocab_size=self.tokenizer.size))

    @cached_property
    def pool(self) -> Pool:
        """What tower, VAE and UNet learn from; with a start, what sharpens its UNet."""
        cache = cache_dir() if self._art is None else None
        return build_pool(self.art, self.size.pictures, self.size.frees, cache, self.seed, mix=HARDER if self.start else MIX)

    def talks(self, number: int) -> tuple[Pool, Bank]:
        """The conversations of stage-1 (1) or stage-2 (2), and the features of their pictures."""
        count = self.size.samples if number == 1 or self.start else self.size.samples // 3
        pool = build_pool(self.art, count, seed=self.seed + number, mix=MIX if number == 1 else HARDER)
        return pool, Bank(self.tower, self.config, pool)

    def _stage(self, name: str) -> Stage:
        torch.manual_seed(self.seed * 100 + STAGES.index(name))
        s = self.size
        if name == "encoder":
            return encoder_stage(self.config, self.pool, self.tokenizer, s.encoder, self.seed)
        if name == "vae":
            return vae_stage(self.config, self.pool, s.vae, self.seed)
        if name == "visual-decoding":
            decoder, latents = self.decoder()
            init_layout(decoder, self.features[:4000], latents[:4000])
            return visual_stage(
                self.config,
                decoder,
                self.features,
                latents,
                len(self.pool.scenes),
                Recipe(s.visual, 1e-3, (0.9, 0.99), warmup=100, ema=0.998, save_every=250, seed=self.seed),
            )
        if name in ("stage-1", "stage-2"):
            first = name == "stage-1"
            peak = 8e-4 if not first else 1e-3 if self.start else 1.5e-3
            recipe = Recipe(
                self.steps(name),
                peak,
                (0.9, 0.95),
                weight_decay=0.01,
                warmup=200,
                ema=0.998,
                save_every=500,
                seed=self.seed + (0 if first else 1),
            )
            options = s.options if first and not self.start else dataclasses.replace(s.options, own_from=0.0)
            pool, bank = self.talks(1 if first else 2)
            stage = dialogue_stage(self.config, pool, bank, self.tokenizer, recipe, options)
            stage.name, stage.sample_every = name, s.look
            stage.sample = lambda step, folder: self.watch(stage.model, step, folder)
            if not first and not (self.start and not (self.folder / "stage-1").is_dir()):
                stage.model.load_state_dict(self.weights("stage-1"))
            elif self.start:
                load_writer(self.start, stage.model, self.folder / "tokenizer")
            return stage
        if name == "sharpen":
            decoder, latents = self.decoder()
            tokens, aims = self.predicted()
            recipe = Recipe(s.sharpen, 8e-4 if self.start else 4e-4, (0.9, 0.99), warmup=50, ema=0.998, save_every=250, seed=self.seed + 1)
            stage = visual_stage(self.config, decoder, self.features, latents, len(self.pool.scenes), recipe, predicted=(tokens, aims))
            stage.name = "sharpen"
            if not self.start:
                stage.model.load_state_dict(self.weights("visual-decoding"))
            return stage
        if name == "vae-decoder":
            decoder, latents = self.decoder()
            return vae_decoder_stage(
                decoder.vae,
                self.pool.pictures,
                latents.float() / decoder.vae.config.scaling_factor,
                len(self.pool.scenes),
                s.finish,
                self.seed,
                self.painted(decoder),
            )
        raise ValueError(f"no stage {name!r}: the stages are {', '.join(STAGES)}.")

    def steps(self, name: str) -> int:
        s = self.size
        return {
            "encoder": s.encoder,
            "vae": s.vae,
            "visual-decoding": s.visual,
            "stage-1": s.writer,
            "stage-2": s.harder,
            "sharpen": s.sharpen,
            "vae-decoder": s.finish,
        }[name]

    def train(self, name: str, stop_after: float | None = None) -> None:
        """Run or resume one stage; what a start folder brings along needs no stage, nor does one that the size leaves out."""
        if self.start and name in MADE_BY_START or not self.steps(name):
            return
        if not finished(self.folder / name, Recipe(self.steps(name), 0.0)):
            run(self._stage(name), self.folder / name, self.runtime, stop_after)

    def weights(self, name: str) -> dict[str, Tensor]:
        """The averaged weights that a stage reached, finished or not."""
        path = self.folder / name / "checkpoint" / "weights.pt"
        if not path.is_file():
            raise FileNotFoundError(f"{self.folder}: the stage «{name}» has not run yet. `wegen mini train` runs it.")
        saved = torch.load(path, weights_only=True)
        return saved["model"] | saved["ema"]

    @cached_property
    def tower(self):
        if self.start:
            return load_tower(self.start, self.config)
        heads = EncoderHeads(self.config, self.tokenizer.size)
        heads.load_state_dict(self.weights("encoder"))
        return heads.tower.eval().requires_grad_(False)

    @cached_property
    def watch(self) -> Watch:
        """What the writer rolls out on samples it never sees, painted by the decoder as far as it is trained."""
        if self.start:
            decoder = self.begun()
        else:
            decoder = self.decoder()[0]
            DecoderModule(decoder).load_state_dict(self.painter(decoder))
        return Watch(self.tower, decoder.eval(), self.config, self.tokenizer, self.art)

    @cached_property
    def features(self) -> Tensor:
        """(m,n,c) float16: every picture of the pool."""
        path = self.folder / f"features-{self.pool.digest}.pt"
        if path.is_file():
            return torch.load(path, weights_only=True)
        pictures = self.pool.pictures
        out = torch.cat([encode_pictures(self.tower, self.config, pictures[i : i + 64]) for i in range(0, len(pictures), 64)])
        return keep(out, path)

    def begun(self) -> Decoder:
        """The start's decoder."""
        return load_decoder(self.start, Decoder(self.config.decoder, self.config.unet, self.config.vae, self.config.scheduler))

    def decoder(self) -> tuple[Decoder, Tensor]:
        """A decoder over the trained VAE (fresh, or the start's), and the pool's scaled latents (m,k,h,w)."""
        if self.start:
            decoder = self.begun()
        else:
            decoder = Decoder(self.config.decoder, self.config.unet, self.config.vae, self.config.scheduler)
            decoder.vae.load_state_dict(self.weights("vae"))
        decoder.vae.eval().requires_grad_(False)
        known = decoder.vae.config.scaling_factor
        decoder.vae.register_to_config(scaling_factor=1.0)  # the kept latents are unscaled
        latents = encode_latents(decoder, self.pool.pictures, path=self.folder / f"latents-{self.pool.digest}.pt")
        scale = known if self.start else round(1 / latents[:2000].float().std().item(), 5)
        decoder.vae.register_to_config(scaling_factor=scale)
        return decoder, (latents.float() * scale).half()

    def writer(self) -> LanguageModule:
        """The writer as far as the stages have reached."""
        writer = LanguageModule(self.config)
        reached = [name for name in ("stage-1", "stage-2") if (self.folder / name / "checkpoint").is_dir()]
        if self.start and not reached:
            load_writer(self.start, writer, self.folder / "tokenizer")
        else:
            writer.load_state_dict(self.weights(reached[-1] if reached else "stage-1"))
        return writer.eval().requires_grad_(False)

    def predicted(self, count: int = 4000, worst: float = 0.1) -> tuple[Tensor, list[int]]:
        """The writer's own features for training samples (p,n,c), written in both modes, and the rows they aim at.

        Those with a normalised squared error above `worst` are left out: a decoder can sharpen a blur, not undo a mistake.
        """
        from .rollout import roll

        path = self.folder / f"predicted-{self.pool.digest}.pt"
        if path.is_file():
            saved = torch.load(path, weights_only=True)
            return saved["tokens"], saved["rows"]
        writer = self.writer()
        tokens, rows = roll(writer, self.config, self.tokenizer, self.pool, self.features, count, self.runtime)
        error = ((tokens.float() - self.features[rows].float()) / writer.projectors.std).square().mean((1, 2))
        kept = (error < max(worst, error.median().item())).nonzero().flatten().tolist()
        tokens, rows = tokens[kept], [rows[i] for i in kept]
        keep({"tokens": tokens, "rows": rows}, path)
        return tokens, rows

    def painted(self, decoder: Decoder, count: int = 2000) -> tuple[Tensor, list[int]]:
        """Unscaled latents (p,k,h,w) that the UNet paints, half under the writer's own features and half under true ones of the
        same pictures, and the rows they aim at."""
        path = self.folder / f"painted-{self.pool.digest}.pt"
        if path.is_file():
            saved = torch.load(path, weights_only=True)
            return saved["latents"], saved["rows"]
        tokens, aims = self.predicted()
        some = torch.randperm(len(aims), generator=torch.Generator().manual_seed(self.seed))[: count // 2].tolist()
        rows = [aims[i] for i in some] * 2
        DecoderModule(decoder).load_state_dict(self.painter(decoder))
        latents = paint_latents(decoder.eval(), torch.cat([tokens[some], self.features[rows[: len(some)]]]), self.seed, self.runtime)
        keep({"latents": latents, "rows": rows}, path)
        return latents, rows

    def painter(self, decoder: Decoder) -> dict[str, Tensor]:
        """The weights of UNet and layout as far as the stages have reached."""
        for name in ("sharpen", "visual-decoding"):
            if (self.folder / name / "checkpoint").is_dir():
                return self.weights(name)
        return DecoderModule(decoder).state_dict() if self.start else self.weights("visual-decoding")

    def export(self, target: str | Path) -> Path:
        """Write the model folder from whatever the stages have reached; spaces carry the tower's hash."""
        tower = self.tower.state_dict()
        digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in tower.values())).hexdigest()[:8]
        space = f"{self.config.features.space}@{digest}"
        if self.start:  # its VAE, and so its preview
            decoder, factors = self.begun(), model_folder.read_config(self.start).decoder.latent_rgb
        else:
            decoder, latents = self.decoder()
            factors = preview_factors(latents[:500].float(), self.pool.pictures[:500])
        painter = self.painter(decoder)
        if (self.folder / "vae-decoder" / "checkpoint").is_dir():
            decoder.vae.load_state_dict(self.weights("vae-decoder"))
        writer = self.writer()
        config = dataclasses.replace(
            self.config,
            concepts=NAMES,
            knows=KNOWS,
            features=dataclasses.replace(self.config.features, space=space, tower=space),
            decoder=dataclasses.replace(self.config.decoder, space=space, tower=space, latent_rgb=factors),
            vae=self.config.vae | {"scaling_factor": decoder.vae.config.scaling_factor},
        )
        states = {
            "vision": tower,
            "language": writer.language.state_dict(),
            "projectors": writer.projectors.state_dict(),
            "unet": {k[5:]: v for k, v in painter.items() if k.startswith("unet.")},
            "layout": {k[7:]: v for k, v in painter.items() if k.startswith("layout.")},
            "vae": decoder.vae.state_dict(),
        }
        return model_folder.save(target, config, states, self.folder / "tokenizer", torch.float16)


def train(
    folder: str | Path,
    size: str = "cpu",
    only: tuple[str, ...] = (),
    target: str | Path | None = None,
    runtime: Runtime | None = None,
    start: str | Path | None = None,
    seed: int = 0,
) -> Path | None:
    """Run the recipe, or the stages named in `only`, from nothing or from a model folder; returns the exported model folder.

    `seed`: of samples, pictures and initial weights.

    Raises:
        ValueError: no such size, or one that goes on from a start without one.
        CheckpointError: before anything runs, when the target holds something that would be lost.
    """
    if size not in SIZES:
        raise ValueError(f"no size {size!r}: the sizes are {', '.join(SIZES)}.")
    if not SIZES[size].encoder and start is None:
        raise ValueError(f"size {size!r} goes on from a miniature: name its model folder with --start.")
    shop = Workshop(folder, size, runtime, seed, start=start)
    target = Path(target or shop.folder / "wegen-mini")
    if "export" in (only or STAGES):
        model_folder.check_target(target, {*model_folder.PLACES, "tokenizer"})
        if shop.folder.resolve().is_relative_to(target.resolve()):
            raise model_folder.CheckpointError(f"{target}: the work folder {shop.folder} is in it. Name another folder to export to.")
    for name in only or STAGES:
        if name == "export":
            return shop.export(target)
        shop.train(name)
    return None
