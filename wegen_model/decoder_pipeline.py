"""`WeGenDecoder` paints: the UNet, VAE and scheduler of a folder, by the call that nodes and the command line make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import formats, model_folder
from .config import ModelConfig
from .encoder_pipeline import WeGenEncoder
from .features import Features, check_space
from .generation import decoder_presets, paint
from .models.decoder import Decoder
from .runtime import Component, Runtime
from .validation import check_number, check_seed


class WeGenDecoder:
    """UNet, VAE and scheduler of a folder: features in, pictures out."""

    def __init__(self, folder: Path, config: ModelConfig, runtime: Runtime, blank: Callable[[], Features] | None = None):
        """`blank`: gives the features of the blank picture that some decoders are guided against; None asks the tower of the folder."""
        self.folder, self.config, self.runtime = folder, config, runtime
        self._make_blank = blank
        self._blank: Features | None = None
        self.loras: tuple[tuple[Path, float], ...] = ()
        self._decoder: Decoder | None = None
        self._components: dict[str, Component] = {}

    def with_lora(self, path: str | Path, strength: float = 1.0) -> WeGenDecoder:
        """The same decoder with an adapter (models/lora.py) added to its UNet; this one stays as it is. Weights are read again.

        Raises:
            ValueError: no such adapter, or one for another space of features.
        """
        from .models.lora import read_lora

        read_lora(path, self.config.decoder.space)
        out = WeGenDecoder(self.folder, self.config, self.runtime, self._make_blank)
        out._blank = self._blank  # shared, not copied
        out.loras = (*self.loras, (Path(path), strength))
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
        if self._decoder is None:
            c = self.config
            with torch.device("meta"):
                decoder = Decoder(c.decoder, c.unet, c.vae, c.scheduler, self.runtime.operations)
            for name in ("unet", "vae"):
                model_folder.load_into(getattr(decoder, name), self.folder, name, self.runtime.place(name).dtype)
            for path, strength in self.loras:
                from .models.lora import merge, read_lora

                merge(decoder.unet, "unet", read_lora(path), strength, f"lora {path.name}")
            if decoder.layout is not None:
                model_folder.load_into(decoder.layout, self.folder, "layout", self.runtime.place("unet").dtype)
                decoder.unet.wegen_layout = decoder.layout  # moves with the UNet
            self._components = {name: self.runtime.register_component(name, getattr(decoder, name)) for name in ("unet", "vae")}
            self._decoder = decoder
        return self._decoder

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
        seed: int = 0,
        width: int | None = None,
        height: int | None = None,
        scheduler: str | None = None,
        negative: str | Features | None = None,
        time_ids: str | None = None,
    ) -> Tensor:
        """Paint each row of features.

        Args:
            steps, guidance_scale, width, height: None takes what the decoder was made for. Sides in pixels, multiples of 8.
            seed: of the noise; one generator a batch, on the CPU.
            negative: one of config.NEGATIVES, or features. time_ids: of config.TIME_IDS. None as the decoder was made for.
        Returns:
            (b,height,width,3) float pictures in 0..1, on the CPU.
        """
        c = self.config.decoder
        steps = c.steps if steps is None else steps
        guidance_scale = c.guidance_scale if guidance_scale is None else guidance_scale
        width, height = c.size if width is None else width, c.size if height is None else height
        if steps < 1:
            raise ValueError(f"steps is {steps}: at least 1 denoising step is needed (this decoder's default is {c.steps}).")
        check_number("SDXL Feature Decoder", "guidance_scale", guidance_scale, 0, hint=f" (this decoder's default is {c.guidance_scale})")
        check_seed("SDXL Feature Decoder", seed)
        for side, value in (("width", width), ("height", height)):
            if value < 8 or value % 8:
                raise ValueError(f"{side} is {value}: it must be a multiple of 8, and at least 8.")
        features.check_finite("SDXL Feature Decoder, features")
        note = check_space(features, c.space, c.tower, f"the decoder '{self.name}'", "SDXL Feature Decoder, features", width=c.width)
        if note:
            self.runtime.warn(note)
        see = self.blank if self._make_blank or model_folder.files(self.folder, "vision") else None
        blank = decoder_presets.unconditional(self.config, negative, see, self.runtime) if guidance_scale != 1 else None
        decoder = self._load()
        f = decoder.factor
        if width % f or height % f:
            raise ValueError(f"width and height must be multiples of {f} for this decoder.")
        place = self.runtime.place("unet")
        rows = len(features) * (2 if guidance_scale != 1 else 1)
        room = decoder.sampling_bytes(rows, height // f, width // f, place.dtype.itemsize)
        with self.runtime.use(self._components["unet"], extra_bytes=room) as device:
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
                device=device,
                dtype=place.dtype,
                runtime=self.runtime,
            )
        room = decoder.painting_bytes(height, width, self.runtime.place("vae").dtype.itemsize)
        with self.runtime.use(self._components["vae"], extra_bytes=room) as device:
            return paint.pictures(decoder, latents.to(device), self.runtime)
