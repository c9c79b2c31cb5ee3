"""The miniature's drawn world as a source of training samples (data/image_folder.py): what `wegen train --data mini` reads.

    mini:talks,samples=30000,mix=harder        conversations, for stage-1 and stage-2
    mini:pictures,samples=16000,frees=8000     single pictures, half of them scenes with their caption, half free ones

A micro-batch of conversations is of one task and alike in length, of about `tokens` tokens; the settings' `batch` counts for pictures.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..chat.conversation import Box
from ..chat.tokenizer import Tokenizer
from ..config import ModelConfig
from ..data.image_folder import rows
from ..data.model_inputs import KeyedPicture
from ..data.sample import Sample, Turn, plan
from . import tasks
from .pictures import caption, free, scenes_of
from .world.art import Art, load_art
from .world.concepts import TRAINED_STYLES
from .world.effects import LAID
from .world.scenes import Scene, render

MIXES: Mapping[str, Mapping[str, float]] = {"all": tasks.MIX, "harder": tasks.HARDER}
BUCKET = 400  # samples alike in length
APART = 10_000_000  # seeds between two datasets' samples


@dataclass(frozen=True)
class WorldOptions:
    """How much of the drawn world, and which."""

    samples: int = 30_000  # conversations
    frees: int = 0  # pictures beyond their scenes
    mix: str = "all"  # a key of MIXES
    tokens: int = 1100  # of a micro-batch of conversations, about
    seed: int = 0


class DrawnWorld:
    """`samples(step, index, count, each)`: conversations, or single pictures."""

    def __init__(self, options: WorldOptions, art: Art, tokenizer: Tokenizer, config: ModelConfig, pictures: bool = False):
        """`config`: of the model, whose positions and features say how long a conversation is."""
        if options.mix not in MIXES:
            raise ValueError(f"--data mini: mix is {options.mix!r}; choose {', '.join(MIXES)}.")
        if options.samples < 1 or options.tokens < 1:
            raise ValueError(f"--data mini: samples is {options.samples} and tokens {options.tokens}; both are at least 1.")
        self.options, self.art, self.tokenizer, self.config, self.pictures = options, art, tokenizer, config, pictures
        mix = MIXES[options.mix]
        self.conversations = [tasks.sample(options.seed * APART + i, mix) for i in range(options.samples)]

    @cached_property
    def scenes(self) -> list[Scene]:
        return scenes_of(self.conversations)

    @cached_property
    def buckets(self) -> list[tuple[np.ndarray, int]]:
        """Conversations of one task and alike in length, and the tokens of the longest."""
        n, positions = self.config.features.count, self.config.language.positions
        talks = (self.sample(i) for i in range(len(self.conversations)))
        lengths = np.array([len(plan(one, self.tokenizer, positions, n, self.config.memory)[0].ids) for one in talks])
        names = np.array([one.task for one in self.conversations])
        out = []
        for task in sorted(set(names.tolist())):
            mine = np.flatnonzero(names == task)
            mine = mine[np.argsort(lengths[mine], kind="stable")]
            out += [(mine[i : i + BUCKET], int(lengths[mine[i : i + BUCKET]].max())) for i in range(0, len(mine), BUCKET)]
        return out

    def samples(self, step: int, index: int, count: int, each: int) -> list[Sample]:
        """Micro-batch `index` of `count` of a step: a pure function."""
        if self.pictures:
            return self._pictures(step, index, count, each)
        rng = np.random.default_rng((self.options.seed, 7, step * count + index))
        sizes = np.array([len(bucket) for bucket, _ in self.buckets])
        bucket, longest = self.buckets[rng.choice(len(sizes), p=sizes / sizes.sum())]
        size = min(len(bucket), max(3, int(self.options.tokens / longest)))
        return [self.sample(int(i)) for i in rng.choice(bucket, size, replace=False)]

    def identity(self) -> dict[str, str]:
        """Of the options, and of the first conversations, which change with the world's own rules."""
        h = hashlib.sha256(repr((self.options, self.pictures, self.conversations[:200])).encode())
        kind = "pictures" if self.pictures else "talks"
        return {"what": f"mini:{kind} with {self.options}", "hash": h.hexdigest()[:16]}

    @property
    def talks(self) -> DrawnWorld:
        """The conversations behind the pictures."""
        out = object.__new__(DrawnWorld)
        out.__dict__ |= {k: v for k, v in self.__dict__.items() if k != "buckets"} | {"pictures": False}
        return out

    def _pictures(self, step: int, index: int, count: int, each: int) -> list[Sample]:
        total = each * count
        named = total // 2 if self.options.frees else total
        scenes = [self.captioned(self.scenes[int(row)]) for row in rows(1, step, named, len(self.scenes))]
        frees = [self.free(int(row)) for row in rows(2, step, total - named, self.options.frees)] if named < total else []
        mixed = [one for pair in itertools.zip_longest(scenes, frees) for one in pair if one is not None]
        return mixed[index * each : (index + 1) * each]

    def picture(self, scene: Scene) -> KeyedPicture:
        return KeyedPicture(repr(scene), lambda: render(scene, self.art))

    def captioned(self, scene: Scene) -> Sample:
        turns = (Turn("user", caption(scene)), Turn("assistant", "", drawn=self.picture(scene)))
        return Sample("text-to-picture", turns, repr(scene))

    def free(self, row: int) -> Sample:
        seed = self.options.seed * APART + row
        drawn = KeyedPicture(f"free {seed}", lambda: free(seed, self.art))
        return Sample("reconstruction", (Turn("assistant", "", drawn=drawn),), f"free {seed}")

    def sample(self, row: int) -> Sample:
        return as_sample(self.conversations[row], self, str(row))


def as_sample(one: tasks.Sample, world: DrawnWorld, key: str) -> Sample:
    """A conversation of the drawn world in the one form of training samples. What is laid into a box is shown as it is and gets laid
    there when the model is shown it, as a user's picture is."""
    turns = []
    for turn in one.turns:
        shown = tuple(
            None if r.scene is None else world.picture(replace(r.scene, effect="") if r.scene.effect.startswith(LAID) else r.scene)
            for r in turn.references
        )
        boxes = tuple(Box(*r.box) if r.box else None for r in turn.references)
        turns.append(Turn(turn.role, turn.text, shown, boxes, None if turn.picture is None else world.picture(turn.picture)))
    return Sample(one.task, tuple(turns), key, "mini")


def held_out(world: DrawnWorld, each: int = 3) -> list[Sample]:
    """Samples of combinations that training never sees, `each` a task, of those that end in a picture: for sample pictures."""
    found = [tasks.sample(seed, {task: 1}, "heldout") for task in tasks.TASKS for seed in range(each)]
    return [as_sample(one, world, f"held out {i}") for i, one in enumerate(found) if one.turns[-1].picture is not None]


def open_dataset(text: str, seed: int, model: str, art: Art | None = None) -> DrawnWorld:
    """Of the words behind `--data`: mini, or mini:pictures,samples=16000,… `model`: a model folder, for tokenizer and sizes.

    Raises:
        ValueError: an unknown option, or one that is no whole number; it says what would do.
    """
    from ..checkpoint.model_folder import read_config, resolve

    numbers, mix, pictures = {"seed": seed}, WorldOptions.mix, False
    for word in filter(None, text.partition(":")[2].split(",")):
        name, _, value = word.partition("=")
        if word in ("pictures", "talks"):
            pictures = word == "pictures"
        elif name == "mix":
            mix = value
        elif name in ("samples", "frees", "tokens", "seed") and value.isdecimal():
            numbers[name] = int(value)
        else:
            raise ValueError(
                f"--data {text}: {word!r} is no option of mini. Write mini:talks or mini:pictures, and samples=, frees=, tokens=, seed= "
                f"with a whole number, or mix= with {' or '.join(MIXES)}."
            )
    folder = resolve(model)
    options = WorldOptions(mix=mix, **numbers)
    return DrawnWorld(options, art or load_art(TRAINED_STYLES), Tokenizer.load(folder), read_config(folder), pictures)
