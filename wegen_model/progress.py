"""Progress as a value: a step of a long computation, passed to the host by `Runtime.tick`, which shows it as it likes.

A label is for people (tqdm's and ComfyUI's bar) and may be translated or changed; programs look at `kind`, `cells` and `text`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LABELS = {  # kind -> what people read beside the bar
    "read_prompt": "WeGen reads",
    "write_text": "WeGen writes",
    "write_features": "WeGen draws",
    "denoise": "Decoder",
    "vae": "VAE",
    "tower": "EVA-CLIP",
    "train": "training",
    "convert": "Converting",
    "export": "Exporting",
    "other": "",  # by its label alone
}


@dataclass(frozen=True)
class ProgressEvent:
    """`step` of `total` steps of `kind` (one of LABELS) is done."""

    kind: str
    step: int
    total: int
    text: str | None = None  # what was written so far, or which thing is worked on
    cells: Callable[[], Tensor] | None = None  # gives (k,3) in 0..1: a colour for each feature written so far, row-major
    preview: Callable[[], Tensor] | None = None  # gives (h,w,3) in 0..1: a picture of how far it is
    label: str = ""  # what people read; empty: that of the kind

    def __post_init__(self) -> None:
        if self.kind not in LABELS:
            raise ValueError(f"progress: {self.kind!r} is no kind; choose one of {', '.join(LABELS)}.")
        if not self.label:
            object.__setattr__(self, "label", LABELS[self.kind] or self.kind)

    @property
    def done(self) -> bool:
        return self.step >= self.total
