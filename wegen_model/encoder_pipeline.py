"""`WeGenEncoder` sees: the EVA-CLIP tower of a folder, pictures in, features out."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoint import model_folder
from .config import ModelConfig
from .features import Features, pool
from .models import eva_clip
from .models.quantization import QuantizedLinear, scratch_bytes
from .runtime import Component, Runtime, check_result
from .validation import check_images

BATCH = 8  # pictures through the tower at once
KEPT = 64  # calls whose features are kept by content: at full size 0.5 MB a picture


class WeGenEncoder:
    """The part of a model folder that looks. Weights are read when a call first needs them, through the runtime."""

    def __init__(self, folder: Path, config: ModelConfig, runtime: Runtime):
        self.folder, self.config, self.runtime = folder, config, runtime
        self._components: dict[str, Component] = {}
        self._kept: OrderedDict[str, Features] = OrderedDict()

    def modules(self) -> dict[str, Callable[[Any], torch.nn.Module]]:
        """Component -> what builds its module from a namespace of layer classes."""
        return {"vision": lambda ops: eva_clip.VisionTower(self.config.vision, ops)}

    def component(self, name: str) -> Component:
        """A loaded component, one of `modules`."""
        if name not in self._components:
            ops = self.runtime.operations
            with torch.device("meta"):
                module = self.modules()[name](ops)
            dtype, layer = self.runtime.place(name).dtype, getattr(ops, "QuantizedLinear", QuantizedLinear)
            model_folder.load_into(module, self.folder, name, dtype, self.runtime.blocks, layer)
            self.adapt(name, module)
            self._components[name] = self.runtime.register_component(name, module)
        return self._components[name]

    def adapt(self, name: str, module: torch.nn.Module) -> None:
        """Change a component that was just loaded, before it is used: a subclass's adapters."""

    def features(self, tokens: Tensor) -> Features:
        """Wrap raw tokens (b,n,c) of this model's space."""
        f = self.config.features
        return Features(tokens.float().cpu(), (f.grid[0], f.grid[1]), f.space, f.tower)

    @torch.no_grad()
    def encode(self, images: Tensor, fit: str = "squash", where: str = "EVA-CLIP Encode, image") -> Features:
        """Pictures (b,h,w,3), (b,h,w,1) or (b,h,w,4), float 0..1, to features. `fit`: squash, crop or pad to the square.
        `where` names the input in errors. What was encoded lately is not computed again: a chat shows the same pictures every turn.

        Raises:
            ValueError: NaN, or a shape that is no picture.
        """
        images = check_images(images, where)
        key = f"{fit} {tuple(images.shape)} {hashlib.sha256(images.detach().cpu().contiguous().numpy().data).hexdigest()}"
        if key in self._kept:
            self._kept.move_to_end(key)
            return replace(self._kept[key])  # a value of its own: who counts pictures tells them apart by identity
        part, (rows, columns) = self.component("vision"), self.config.features.grid
        place = self.runtime.place("vision")
        out = []
        room = self.config.vision.bytes(min(BATCH, len(images)), place.dtype) + scratch_bytes(part.module)
        with self.runtime.use(part, room) as device:
            for chunk in images.split(BATCH):
                pixels = eva_clip.prepare(chunk.to(device), self.config.vision, fit).to(place.dtype)
                out.append(pool(part.module(pixels, self.runtime), (rows, columns)).float().cpu())
        features = self.features(check_result(torch.cat(out), "features", vision=part.module))
        if len(images) <= BATCH:
            self._kept[key] = features
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return replace(features)

    def blank(self) -> Features:
        """Features (1,n,c) of a blank picture: all zero once normalised, the mean colour (Emu2's unconditional input)."""
        mean = torch.tensor(self.config.vision.mean)
        return self.encode(mean.expand(1, *(self.config.vision.image_size,) * 2, 3), where="the blank picture")
