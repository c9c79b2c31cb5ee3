"""What the steps can be told: models, thresholds, sizes."""

from __future__ import annotations

from dataclasses import dataclass

from .models import check


@dataclass(frozen=True)
class Options:
    """All that the steps can be told; written beside each step's shards, since other options give other shards."""

    cut: float = 27.0  # scenedetect's content threshold
    shortest: float = 1.0  # seconds of a shot
    every: float = 0.25  # seconds between the frames looked at
    motion: float = 0.03  # share of the picture that must have changed
    frames: int = 4  # of a shot, at most
    side: int = 1024  # pixels
    captioner: str = "plain"
    longer: str = "plain:long"  # of Laion-COCO-Recaption's second caption
    phrases: str = "plain"
    detector: str = "plain"
    tracker: str = "plain"
    embedder: str = "plain"
    score: float = 0.3  # of a detection
    overlap: float = 0.6  # of two boxes that are one thing
    instances: int = 8  # of a frame, at most
    smallest: float = 0.005  # share of the picture
    same: float = 0.6  # the identity window: at least this alike is the same thing …
    copy: float = 0.995  # … and more than this is a copy, from which nothing is learned

    def __post_init__(self):
        if not 0 <= self.same < self.copy <= 1:
            raise ValueError(f"the identity window is {self.same:g} to {self.copy:g}: --same must be below --copy, both within 0 and 1.")
        if self.frames < 2 or self.instances < 1 or self.every <= 0:
            raise ValueError("--frames is at least 2, --instances 1, --every above 0.")
        for kind in ("captioner", "detector", "tracker", "embedder"):
            check(kind, getattr(self, kind))
