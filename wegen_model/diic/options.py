"""What the steps can be told: models, thresholds, sizes; and which step each of them concerns."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .models import PRECISIONS, check

ORDER = ("shots", "caption", "ground", "track", "pair")
CONCERNS = {  # step -> the options that change what it writes; a step also depends on those before it
    "shots": ("cut", "shortest", "every", "motion", "frames", "side", "unit", "least", "blur", "text", "alike"),
    "caption": ("captioner", "phrases", "watermark", "precision"),
    "ground": ("detector", "score", "overlap", "instances", "smallest"),
    "track": ("tracker",),
    "pair": ("embedder", "same", "copy"),
    "recaption": ("captioner", "longer", "side", "precision"),
}


@dataclass(frozen=True)
class Options:
    """All that the steps can be told. `of(step)` is written beside the step's shards, since other options give other shards."""

    cut: float = 27.0  # scenedetect's content threshold
    shortest: float = 1.0  # seconds of a shot
    every: float = 0.25  # seconds between the frames looked at, and between those in which things are followed
    motion: float = 0.03  # share of the picture that must have changed, besides what the camera's own motion changed
    frames: int = 4  # of a shot, at most
    side: int = 1024  # pixels
    unit: float = 600.0  # seconds of film that are one unit of work
    least: int = 256  # pixels of a film's shorter side
    blur: float = 2.2  # pixels of 256: frames whose hardest edges are softer
    text: float = 0.02  # share of the picture that lines of text may cover
    alike: int = 3  # of 64 bits: frames whose hashes differ in no more are the same picture; -1: keep them
    watermark: str = "drop"  # or "keep": films with something in the same place over all shots
    captioner: str = "plain"
    longer: str = "plain:long"  # of Laion-COCO-Recaption's second caption
    phrases: str = "plain"
    detector: str = "plain"
    tracker: str = "plain"
    embedder: str = "plain"
    precision: str = "auto"  # of the models of transformers
    batch: int = 8  # pictures of one call of a model; changes no result beyond rounding
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
        if self.unit < 10 or self.batch < 1:
            raise ValueError("--unit is at least 10 seconds, --batch at least 1.")
        if self.watermark not in ("drop", "keep"):
            raise ValueError(f"--watermark is drop or keep, not {self.watermark!r}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"--precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}.")
        for kind in ("captioner", "detector", "tracker", "embedder"):
            check(kind, getattr(self, kind))

    def of(self, step: str) -> dict:
        """The options that shards of a step depend on: its own and those of the steps before it."""
        steps = ORDER[: ORDER.index(step) + 1] if step in ORDER else (step,)
        values = asdict(self)
        return {"step": step, **{f"--{name}": values[name] for s in steps for name in CONCERNS[s]}}
