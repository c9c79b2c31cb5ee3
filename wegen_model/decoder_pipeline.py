"""`WeGenDecoder` paints: the UNet, VAE and scheduler of a folder, by the call that nodes and the command line make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .bounds import STEPS
from .checkpoint import formats, model_folder
from .config import ModelConfig
from .encoder_pipeline import WeGenEncoder
from .features import Features, check_space
from .generation import change_mask, decoder_presets, keep, paint
from .models.decoder import Decoder
from .models.regional_attention import AttentionBias, RegionalAttention, biased
from .runtime import Component, Runtime, check_result
from .validation import check_images, check_number, check_seed

MASK_MODES = ("paint", "probe")


class WeGenDecoder:
    """UNet, VAE and scheduler of a folder: features in, pictures out."""

    def __init__(self, folder: Path, config: ModelConfig, runtime: Runtime, blank: Callable[[], Features] | None = None):
        """`blank`: gives the features of the blank picture that some decoders are guided against; None asks the tower of the folder."""
        self.folder, self.config, self.runtime = folder, config, runtime
        self._make_blank = blank
        self._blank: Features | None = None
        self.loras: tuple[tuple[Path, float], ...] = ()
        self.regional: RegionalAttention | None = None
        self._weights_of: WeGenDecoder | None = None  # a decoder whose weights it shares
        self._decoder: Decoder | None = None
        self._components: dict[str, Component] = {}

    def with_lora(self, path: str | Path, strength: float = 1.0) -> WeGenDecoder:
        """The same decoder with an adapter (models/lora.py) added to its UNet; this one stays as it is. Weights are read again.

        Raises:
            ValueError: no such adapter, or one for another space of features.
        """
        from .models.lora import of_part, read_lora

        tensors = read_lora(path, self.config.decoder.space)
        if of_part(tensors, "language") and not of_part(tensors, "unet"):
            raise ValueError(
                f"lora: {Path(path).name} is of the language model, as WeGen Train Subject writes it: put it on with WeGen Model LoRA."
            )
        out = WeGenDecoder(self.folder, self.config, self.runtime, self._make_blank)
        out._blank = self._blank  # shared, not copied
        out.loras = (*self.loras, (Path(path), strength))
        out.regional = self.regional
        return out

    def with_regional_attention(self, regional: RegionalAttention) -> WeGenDecoder:
        """The same decoder, weights shared, whose cross-attention is biased by places (models/regional_attention.py).

        Raises:
            ValueError: its tokens are on no grid, or the reference features are of another space.
        """
        note = regional.check(self.config)
        if note:
            self.runtime.warn(note)
        out = WeGenDecoder(self.folder, self.config, self.runtime, self._make_blank)
        out.loras, out.regional, out._weights_of, out._blank = self.loras, regional, self, self._blank
        return out

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        runtime: Runtime | None = None,
        roots: tuple = (),
        preset: str | None = None,
        blank: Callable[[], Features] | None = None,
    ) -> WeGenDecoder:
        """Open a decoder folder (or a model folder's decoder). Weights are read at the first decode.

        `preset`: drive it like another public decoder (a name of checkpoint.formats.inference_presets()); None as its configuration says.
        `blank`: as of the class.
        """
        folder = model_folder.resolve(name_or_path, roots)
        config = model_folder.read_config(folder)
        for part in ("unet", "vae", "scheduler"):
            if not getattr(config, part):
                raise model_folder.CheckpointError(
                    f"{folder.name}: no {part}/ folder with its configuration, so there is no decoder here. "
                    f"The folder has: {', '.join(model_folder.parts(folder)) or 'nothing'}."
                )
        return cls(folder, decoder_presets.apply(config, formats.inference_preset(preset)), runtime or Runtime(), blank)

    def blank(self) -> Features:
        """Features of a blank picture, by the model that the decoder belongs to or the tower of its own folder."""
        if self._blank is None:
            self._blank = (self._make_blank or WeGenEncoder(self.folder, self.config, self.runtime).blank)()
        return self._blank

    def _load(self) -> Decoder:
        if self._decoder is None and self._weights_of is not None:
            self._decoder, self._components = self._weights_of._load(), self._weights_of._components
        if self._decoder is None:
            c = self.config
            with torch.device("meta"):
                decoder = Decoder(c.decoder, c.unet, c.vae, c.scheduler, self.runtime.operations)
            for name in ("unet", "vae"):
                model_folder.load_into(getattr(decoder, name), self.folder, name, self.runtime.place(name).dtype)
            for path, strength in self.loras:
                from .models.lora import merge, of_part, read_lora

                tensors = read_lora(path)
                merge(decoder.unet, "unet", of_part(tensors, "unet") or tensors, strength, f"lora {path.name}")
            if decoder.layout is not None:
                model_folder.load_into(decoder.layout, self.folder, "layout", self.runtime.place("unet").dtype)
                decoder.unet.wegen_layout = decoder.layout  # moves with the UNet
            self._components = {name: self.runtime.register_component(name, getattr(decoder, name)) for name in ("unet", "vae")}
            self._decoder = decoder
        return self._decoder

    def _check_late(self, features: Features, late: Features, share: float) -> None:
        where = "SDXL Feature Decoder, late_features"
        check_number("SDXL Feature Decoder", "last_steps", share, 0, 1)
        late.check_finite(where)
        check_space(
            late, self.config.decoder.space, self.config.decoder.tower, f"the decoder '{self.name}'", where, width=self.config.decoder.width
        )
        if len(late) != len(features):
            raise ValueError(f"{where}: {len(late)} rows for {len(features)} of features. Both are of the same pictures.")

    @property
    def name(self) -> str:
        return self.config.name

    @torch.no_grad()
    def decode(
        self,
        features: Features,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | Sequence[int] = 0,
        width: int | None = None,
        height: int | None = None,
        scheduler: str | None = None,
        negative: str | Features | None = None,
        time_ids: str | None = None,
        original: Tensor | None = None,
        mask: Tensor | None = None,
        feather: float = keep.FEATHER,
        grow: float = 0.0,
        match_colours: bool = False,
        late: tuple[Features, float] | None = None,
    ) -> Tensor:
        """Paint each row of features; with `original` and `mask`, into an original picture of which the rest stays to the bit.

        Args:
            steps, guidance_scale, width, height: None takes what the decoder was made for. Sides in pixels, multiples of 8.
            seed: of the noise, on the CPU: one generator a batch; or a seed a row, whose noise is then what it would be alone.
            negative: one of config.NEGATIVES, or features. time_ids: of config.TIME_IDS. None as the decoder was made for.
            original: (1 or b,H,W,3) in 0..1, of any size. mask: (m,h,w) or (h,w), 1 where it is painted anew: generation/keep.py, which also
                explains feather, grow and match_colours.
            late: as many other features, and the share of the steps, counted from the end, that are painted from them.
        Returns:
            (b,height,width,3) float pictures in 0..1, on the CPU; with an original, of its size.
        """
        c = self.config.decoder
        steps = c.steps if steps is None else steps
        guidance_scale = c.guidance_scale if guidance_scale is None else guidance_scale
        width, height = c.size if width is None else width, c.size if height is None else height
        if steps < 1:
            raise ValueError(f"steps is {steps}: at least 1 denoising step is needed (this decoder's default is {c.steps}).")
        check_number("SDXL Feature Decoder", "steps", steps, 1, STEPS)
        check_number("SDXL Feature Decoder", "guidance_scale", guidance_scale, 0, hint=f" (this decoder's default is {c.guidance_scale})")
        for one in [seed] if isinstance(seed, int) else seed:
            check_seed("SDXL Feature Decoder", one)
        if not isinstance(seed, int) and len(seed) != len(features):
            raise ValueError(f"SDXL Feature Decoder: {len(seed)} seeds for {len(features)} pictures: give one seed, or one for each.")
        for side, value in (("width", width), ("height", height)):
            if value < 8 or value % 8:
                raise ValueError(f"{side} is {value}: it must be a multiple of 8, and at least 8.")
        features.check_finite("SDXL Feature Decoder, features")
        note = check_space(features, c.space, c.tower, f"the decoder '{self.name}'", "SDXL Feature Decoder, features", width=c.width)
        if note:
            self.runtime.warn(note)
        stays = self._kept(original, mask, len(features), feather=feather, grow=grow, match_colours=match_colours)
        if stays is not None and not stays.mask.any():
            return stays.picture.expand(len(features), -1, -1, -1).clone()
        if late is not None:
            self._check_late(features, *late)
        see = self.blank if self._make_blank or model_folder.files(self.folder, "vision") else None
        blank = decoder_presets.unconditional(self.config, negative, see, self.runtime) if guidance_scale != 1 else None
        decoder = self._load()
        f = decoder.factor
        if width % f or height % f:
            raise ValueError(f"width and height must be multiples of {f} for this decoder.")
        held = None if stays is None else (stays.cells(height // f, width // f), self._latents(stays, height, width))
        place = self.runtime.place("unet")
        rows = len(features) * (2 if guidance_scale != 1 else 1)
        room = decoder.sampling_bytes(rows, height // f, width // f, place.dtype.itemsize)
        bias = AttentionBias.of(self.regional, (height // f, width // f), c.grid, len(features))
        with self.runtime.use(self._components["unet"], extra_bytes=room) as device, biased(decoder.unet, bias):
            latents = paint.latents(
                decoder,
                features.tokens,
                seed=seed,
                width=width,
                height=height,
                steps=steps,
                guidance_scale=guidance_scale,
                negative=None if blank is None else blank.tokens,
                scheduler=scheduler,
                time_ids=time_ids,
                keep=held,
                late=None if late is None else (late[0].tokens, late[1]),
                device=device,
                dtype=place.dtype,
                runtime=self.runtime,
            )
        room = decoder.painting_bytes(height, width, self.runtime.place("vae").dtype.itemsize)
        with self.runtime.use(self._components["vae"], extra_bytes=room) as device:
            painted = paint.pictures(decoder, latents.to(device), self.runtime)
        return painted if stays is None else stays.composite(painted)

    @torch.no_grad()
    def change_mask(
        self,
        before: Features,
        after: Features,
        *,
        mode: str = "paint",
        original: Tensor | None = None,
        seed: int = 0,
        threshold: float = change_mask.THRESHOLD,
        grow: float = change_mask.GROW,
        **options,
    ) -> Tensor:
        """Where an edit changed the picture: (b,H,W), 1 there, of the size that is painted.

        Args:
            before: features of the picture before, one or as many as `after`. after: those that were written.
            mode: one of MASK_MODES: "paint" paints both from the same noise and compares the pictures; "probe" asks the UNet at one
                noise level, a few calls instead of two paintings; it needs `original`, the picture before, (1 or b,h,w,3) in 0..1.
            threshold: of 255. grow: percent of the shorter side. options: of `decode`, for painting.
        Raises:
            ValueError: features that do not fit each other or the decoder; a probe without its picture.
        """
        where = "WeGen Change Mask"
        if mode not in MASK_MODES:
            raise ValueError(f"{where}: mode is {mode!r}; choose {' or '.join(MASK_MODES)}.")
        check_number(where, "threshold", threshold, 0, 255)
        check_number(where, "grow", grow, 0, 50)
        if len(before) not in (1, len(after)):
            raise ValueError(
                f"{where}: before holds {len(before)} pictures, after {len(after)}. Connect one picture before, or one for each after."
            )
        before = replace(before, tokens=before.tokens.expand(len(after), -1, -1))
        if mode == "paint":
            one, other = (self.decode(f, seed=seed, **options) for f in (before, after))
            size = (one.shape[1], one.shape[2])
            return change_mask.mask_of(change_mask.compare(one, other), size, threshold, grow)
        if original is None:
            raise ValueError(f"{where}: mode «probe» looks at the picture before: connect it to original, or set mode to «paint».")
        c, decoder = self.config.decoder, self._load()
        for name, f in (("before", before), ("after", after)):
            f.check_finite(f"{where}, {name}")
            check_space(f, c.space, c.tower, f"the decoder '{self.name}'", f"{where}, {name}", width=c.width)
        size = (options.get("height") or c.size, options.get("width") or c.size)
        picture = check_images(original.detach().cpu(), f"{where}, original")
        stays = keep.kept(picture, torch.ones(1, *size), len(after), where=where)
        latents, place = self._latents(stays, *size), self.runtime.place("unet")
        room = decoder.sampling_bytes(2 * len(after), latents.shape[-2], latents.shape[-1], place.dtype.itemsize)
        with self.runtime.use(self._components["unet"], extra_bytes=room) as device:
            change = change_mask.probe(
                decoder, before.tokens, after.tokens, latents, seed=seed, device=device, dtype=place.dtype, runtime=self.runtime
            )
        check_result(change, "a comparison", unet=decoder.unet)
        return change_mask.mask_of(change, size, threshold, grow)

    def _kept(self, original: Tensor | None, mask: Tensor | None, rows: int, **options) -> keep.Kept | None:
        """What stays of an original, checked; None without one."""
        if (original is None) != (mask is None):
            have, lack = ("original", "mask") if mask is None else ("mask", "original")
            raise ValueError(
                f"SDXL Feature Decoder: {have} is connected but {lack} is not. Keeping needs both: the original picture, and a mask that "
                "is white where it is painted anew. Connect both, or neither."
            )
        if original is None or mask is None:
            return None
        check_number("SDXL Feature Decoder", "feather", options["feather"], 0, 50)
        check_number("SDXL Feature Decoder", "grow", options["grow"], -50, 50)
        if original.ndim == 4 and original.shape[-1] == 4 and not bool((original[..., 3] == 1).all()):
            self.runtime.warn("original is transparent in places: it was laid over white, as EVA-CLIP Encode sees it.")
        picture = check_images(original.detach().cpu(), "SDXL Feature Decoder, original")
        return keep.kept(picture, mask, rows, warn=self.runtime.warn, **options)

    def _latents(self, stays: keep.Kept, height: int, width: int) -> Tensor:
        """(1 or b,k,h,w) scaled latents of an original brought to height x width pixels."""
        decoder = self._load()
        room = decoder.painting_bytes(height, width, self.runtime.place("vae").dtype.itemsize)
        with self.runtime.use(self._components["vae"], extra_bytes=room) as device:
            made = decoder.original_latents(stays.pixels(height, width), device)
            return check_result(made, "latents of the original", vae=decoder.vae)
