"""The miniature's conversations: `sample(seed)` is one, as plain hashable data; pictures stay Scene values.

    Sample - turns - Turn(role, text, references, picture)
                                      Ref(scene, box)    a picture shown, a place named, or both

In a text, `<image_k>` and `<bbox_k>` mark where the picture and the box of the turn's k-th reference go (k from 1).
A user's boxes are places in the picture to be made; a picture a user shows with a box is pasted there (chat/reference_cutout.py), one without is
shown whole. Boxes: (x, y, width, height), fractions 0..1, top-left. All texts are lower-case, and short: every token costs time.

Two splits by (thing, colour). With "train" no held-out combination (concepts.held_out_combination) is in any picture,
drawn or shown; with "heldout" the last picture (drawn, or asked about) holds at least one. The shape of the tasks
follows WeGen's training stages: understanding, text to picture, references with boxes, editing and restoration, dialogue,
prompt rewriting. They are in generation.py (from words and references), editing.py (from one picture) and questions.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..world.scenes import Scene
from .editing import CHANGES
from .generation import DRAWING
from .questions import QUESTIONS
from .sampling import SPLITS, TAG, Ref, Rng, Sample, Turn

__all__ = ["HARDER", "MIX", "SPLITS", "TAG", "TASKS", "Ref", "Sample", "Turn", "corpus", "expected", "sample"]

TASKS = {**DRAWING, **CHANGES, **QUESTIONS}

MIX: Mapping[str, float] = {
    "text": 0.22,  # words -> one thing in the middle
    "pair": 0.08,  # words -> two things side by side
    "boxes": 0.09,  # words with boxes
    "references": 0.14,  # pictures (with boxes) -> those things in one picture
    "subject": 0.06,  # a picture -> the same thing on another colour
    "edit": 0.10,  # replace, remove, move, recolour, add
    "restore": 0.06,  # blur, noise, holes, grey, low resolution
    "condition": 0.04,  # edges or silhouette, and words
    "style": 0.04,  # the same thing as another vendor draws it
    "name": 0.025,  # what is this?
    "caption": 0.025,
    "colour": 0.01,
    "count": 0.01,
    "where": 0.05,  # answered with a box
    "refine": 0.06,  # a second and a third request that change the picture
    "rewrite": 0.02,  # a short request -> a longer one (the reply), and its picture
}

HARDER: Mapping[str, float] = {  # the harder, cleaner tasks, once single things are drawn well
    "text": 0.05,
    "pair": 0.04,
    "boxes": 0.06,
    "references": 0.32,
    "subject": 0.05,
    "edit": 0.12,
    "restore": 0.06,
    "condition": 0.05,
    "style": 0.08,
    "name": 0.02,
    "caption": 0.02,
    "colour": 0.01,
    "count": 0.01,
    "where": 0.07,
    "refine": 0.03,
    "rewrite": 0.01,
}


def sample(seed: int, mix: Mapping[str, float] = MIX, split: str = "train") -> Sample:
    """The conversation of a seed: a pure function, the same on every machine.

    mix: task -> weight (need not sum to 1); its order does not matter. ValueError for an unknown task or split.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    unknown = [task for task in mix if task not in TASKS]
    if unknown:
        raise ValueError(f"no task {unknown[0]!r}: the tasks are {', '.join(TASKS)}")
    rng = Rng(f"{split}:{seed}")
    task = rng.choices(list(TASKS), [mix.get(task, 0.0) for task in TASKS])[0]
    return Sample(task, TASKS[task](rng, split == "heldout"))


def expected(sample: Sample) -> Scene | None:
    """The picture the last turn should show; None when it is answered in words."""
    return sample.turns[-1].picture


def corpus(n: int, mix: Mapping[str, float] = MIX) -> Iterator[str]:
    """The texts of the first n training samples, in the pieces between tags: what a tokenizer is trained on."""
    for seed in range(n):
        for turn in sample(seed, mix).turns:
            for piece in TAG.sub("\n", turn.text).split("\n"):
                if piece.strip():
                    yield piece
