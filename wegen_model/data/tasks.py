"""The tasks of the supplement's Table 1, each a function from what a dataset gives to a Sample, worded in several ways.

The wordings are this project's; a draw decides which. The picture shown stands before the words or after them, as in SEED-X's data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..chat.conversation import Box
from .degrade import damage
from .sample import Sample, Turn

Rng = np.random.Generator

PAINT = ("{}", "Paint {}", "Generate a picture: {}", "Draw this: {}", "Make a picture of the following. {}", "I would like to see: {}")
GIVEN = ("Here it is.", "Here is the picture.", "This is it.", "Done.", "")
AGAIN = ("Paint this picture again.", "Show me the same picture.", "Copy this picture exactly.", "Reproduce this.")
DESCRIBE = ("Describe this picture.", "What is in this picture?", "What do you see here?", "Tell me about this picture.")
BRIEFLY = ("Describe this picture in a few words.", "Give a short caption.", "What does it show, briefly?")
MEND = {
    "blur": ("Sharpen this picture.", "It is blurred; make it clear."),
    "noise": ("Remove the noise.", "Clean this noisy picture."),
    "masks": ("Fill in the grey areas.", "Parts are covered; restore them."),
    "jpeg": ("Remove the compression artefacts.", "It was saved badly; repair it."),
    "low resolution": ("Raise the resolution.", "Make this small picture large and clear."),
    "greyscale": ("Colour this picture.", "Give this black-and-white picture its colours."),
}
CONTROL = {  # MultiGen-20M's names
    "canny": "edges",
    "hed": "soft edges",
    "hedsketch": "sketch",
    "depth": "depth map",
    "normal": "normal map",
    "openpose": "skeleton",
    "bbox": "layout of boxes",
    "seg": "segmentation",
    "segbase": "segmentation",
}
FOLLOW = ("Follow the {}: {}", "Paint a picture from the {} given. {}", "Use the {} and paint: {}")
STYLE_OF = (
    "Turn <image_1> into the style of <image_2>.",
    "Paint <image_1> as <image_2> is painted.",
    "Give <image_1> the look of <image_2>.",
)
STYLE = ("Turn this picture into the style {}.", "Paint it in the style {}.", "Restyle this: {}.")


def pick(rng: Rng, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def clean(text: object) -> str:
    """Text of the world as the text of a turn: one space between words, and nothing that reads as one of our tags."""
    return " ".join(str(text or "").split()).replace("<image_", "<image ").replace("<bbox_", "<bbox ")


def spoken(text: object) -> str:
    """As `clean`, with the line breaks that a list, a table or a poem needs; at most one empty line between two."""
    lines = [clean(line) for line in str(text or "").splitlines()]
    return "\n".join(line for i, line in enumerate(lines) if line or (i and lines[i - 1])).strip()


def _beside(rng: Rng, text: str) -> str:
    """The first reference's picture before or after the words."""
    return f"<image_1> {text}" if rng.random() < 0.5 else f"{text} <image_1>"


def _shown(rng: Rng, text: str, picture: np.ndarray) -> Turn:
    return Turn("user", _beside(rng, text), (picture,), (None,))


def _given(rng: Rng, picture: np.ndarray, text: str | None = None) -> Turn:
    return Turn("assistant", pick(rng, GIVEN) if text is None else text, drawn=picture)


def reconstruction(key: str, picture: np.ndarray, rng: Rng) -> Sample:
    return Sample("reconstruction", (_shown(rng, pick(rng, AGAIN), picture), _given(rng, picture)), key)


def restoration(key: str, picture: np.ndarray, rng: Rng) -> Sample:
    """Self-made damage, and the picture as it was."""
    kind, worse = damage(picture, rng)
    return Sample("restoration", (_shown(rng, pick(rng, MEND[kind]), worse), _given(rng, picture)), key)


def mended(key: str, worse: np.ndarray, kind: str, picture: np.ndarray, rng: Rng) -> Sample:
    """Damage that a dataset brings: `kind` of MEND."""
    return Sample("restoration", (_shown(rng, pick(rng, MEND[kind]), worse), _given(rng, picture)), key)


def text_to_picture(key: str, caption: str, picture: np.ndarray, rng: Rng, long: str = "") -> Sample:
    """`long`: the assistant writes it first (prompt self-rewriting)."""
    asked = Turn("user", pick(rng, PAINT).format(clean(caption)))
    return Sample("text-to-picture", (asked, _given(rng, picture, clean(long) if long else None)), key)


def editing(
    key: str, picture: np.ndarray, changes: Sequence[tuple[str, np.ndarray]], rng: Rng, task: str = "editing", reply: str = ""
) -> Sample:
    """Instructions one after another, each with its result. `reply`: what the assistant says to the first, where a dataset has it."""
    turns = []
    for i, (instruction, after) in enumerate(changes):
        turns.append(_shown(rng, clean(instruction), picture) if i == 0 else Turn("user", clean(instruction)))
        turns.append(_given(rng, after, clean(reply) if reply and i == 0 else None))
    return Sample(task, tuple(turns), key)


def condition(key: str, control: np.ndarray, kind: str, caption: str, picture: np.ndarray, rng: Rng) -> Sample:
    text = pick(rng, FOLLOW).format(CONTROL.get(kind, kind), clean(caption))
    return Sample("condition", (_shown(rng, text, control), _given(rng, picture)), key)


def try_on(key: str, person: np.ndarray, cloth: np.ndarray, picture: np.ndarray, rng: Rng) -> Sample:
    """A garment, and who is to wear it."""
    text = pick(rng, ("Let the person of <image_1> wear <image_2>.", "Dress <image_1> in <image_2>."))
    return Sample("condition", (Turn("user", text, (person, cloth), (None, None)), _given(rng, picture)), key)


def style(key: str, before: np.ndarray, name: str, after: np.ndarray, rng: Rng) -> Sample:
    return Sample("style", (_shown(rng, pick(rng, STYLE).format(clean(name)), before), _given(rng, after)), key)


def style_by_example(key: str, before: np.ndarray, exemplar: np.ndarray, after: np.ndarray, rng: Rng) -> Sample:
    """A picture, and another whose style it is to have."""
    return Sample("style", (Turn("user", pick(rng, STYLE_OF), (before, exemplar), (None, None)), _given(rng, after)), key)


def subject(key: str, text: str, pictures: Sequence[np.ndarray], boxes: Sequence[Box | None], picture: np.ndarray, rng: Rng) -> Sample:
    """`text` names the references: `a dog <image_1><bbox_1> on grass`. Boxes are places in the picture to be made."""
    return Sample("subject", (Turn("user", text, tuple(pictures), tuple(boxes)), _given(rng, picture)), key)


def understanding(key: str, picture: np.ndarray | None, talk: Sequence[tuple[str, str]], rng: Rng) -> Sample:
    """Questions and answers, the first about the picture; without one, words alone."""
    turns = []
    for i, (question, answer) in enumerate(talk):
        asked, answered = spoken(question), spoken(answer)
        if not answered:
            raise ValueError("an answer is empty")
        turns.append(_shown(rng, asked, picture) if i == 0 and picture is not None else Turn("user", asked))
        turns.append(Turn("assistant", answered))
    return Sample("understanding", tuple(turns), key)


def described(key: str, picture: np.ndarray, short: str, long: str, rng: Rng) -> Sample:
    """A caption asked for: the long one, or the short one by name."""
    brief = short and (not long or rng.random() < 0.3)
    return understanding(key, picture, [(pick(rng, BRIEFLY if brief else DESCRIBE), short if brief else long)], rng)


def restate(sample: Sample, task: str, rng: Rng) -> Sample:
    """Another task of the picture that a sample draws at its end (and of its words). ValueError where that makes no sense."""
    last = sample.turns[-1]
    if last.drawn is None:
        raise ValueError(f"sample {sample.key}: a {sample.task} sample draws no picture, and cannot be read as {task}.")
    return RESTATED[task](sample, np.asarray(last.drawn), rng)


def _described(sample: Sample, picture: np.ndarray, rng: Rng) -> Sample:
    if sample.task != "text-to-picture":
        raise ValueError(f"sample {sample.key}: only text-to-picture samples have a caption, this is {sample.task}.")
    asked, said = sample.turns[0].text, sample.turns[-1].text
    for form in PAINT[1:]:
        asked = asked.removeprefix(form.format(""))
    return described(sample.key, picture, asked, "" if said in GIVEN else said, rng)


RESTATED: Mapping[str, Callable[[Sample, np.ndarray, Rng], Sample]] = {
    "reconstruction": lambda s, p, rng: reconstruction(s.key, p, rng),
    "restoration": lambda s, p, rng: restoration(s.key, p, rng),
    "understanding": _described,
}
