"""The training samples of a subject: one thing, known by a name that a person chooses, from a handful of pictures of it.

n features · c feature width · s the tower's side in pixels

The model is asked for things that it knows ("a dog on a red background"); its words and the features that it writes are kept. They are
trained again as they are, so that little is forgotten (the prior preservation of DreamBooth, Ruiz et al. 2023, arXiv 2208.12242), and they
are the pattern for the new thing: where the picture shows the known thing on a plain ground, the person's thing is cut out, laid in its
place on that ground, and its name stands for the known word in request and answer. So samples are in the model's own language, whatever it
is: with a plan before the picture or without, with the colours that it means by its words.

A photograph whose subject cannot be cut out (no transparency, no plain rim) is shown as it is, under wordings that name no ground.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..box import Box
from ..chat.conversation import Conversation, Reference
from ..chat.reference_cutout import MARGIN, border, has_transparency, lay_subject, pad_to_square
from ..config import ModelConfig
from ..data.image_folder import rows
from ..data.model_inputs import KeyedPicture
from ..data.sample import Sample, Turn

# of a model that does not say which things it knows: common words, each a thing that stands alone
THINGS = tuple("cat dog horse bird fish car boat house tree flower apple cup chair book ball hat shoe clock lamp guitar".split())
GROUNDS = tuple("white black gray red orange yellow green blue purple pink brown beige teal cyan navy lime".split())
PLAIN = ("{a}", "a picture of {a}", "a photo of {a}", "draw {a}")  # no ground is named
ON_GROUND = ("{a} on {an_on} background", "draw {a} on {an_on} background", "a photo of {a} on {an_on} background", "{a} on {on}")
BOXED = ("{a} <bbox_1> on {an_on} background", "draw {a} at <bbox_1>, {on} background")
BESIDE = ("{a} on the left and {b} on the right, {on} background", "{a} to the left of {b} on {on}")
SHARES = {"plain": 0.2, "ground": 0.45, "box": 0.2, "beside": 0.15}  # of the requests
FLAT = 0.15  # in 0..1: what differs more from the ground's colour is the thing
SMALLEST = 0.02  # share of a picture that a thing covers at least
NAME = re.compile(r"[^\W_][\w '.-]{0,39}")
OWN, NEW = "rehearsal", "subject"  # keys of pictures begin with one


@dataclass(frozen=True)
class Request:
    """A wording with the words that are put into it. `box`: of the thing, where the person gives one."""

    template: str
    thing: str
    other: str = ""
    ground: str = ""
    box: Box | None = None

    def text(self, name: str = "", article: bool = True) -> str:
        """The request; with `name` in the thing's place, with an article or without."""
        word = name or self.thing
        ground = self.ground or "x"
        return self.template.format(
            a=with_article(word) if article else word, b=with_article(self.other or "x"), on=ground, an_on=with_article(ground)
        )

    def conversation(self) -> Conversation:
        return Conversation().user(self.text(), () if self.box is None else (Reference(box=self.box),))


def with_article(word: str) -> str:
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def check_name(name: str, config: ModelConfig) -> str:
    """A subject's name, checked. ValueError: it is empty, too long, holds marks, or is a word that the model already draws."""
    name = " ".join(name.split())
    if not NAME.fullmatch(name):
        raise ValueError(f"subject: {name!r} is no name. Write a word of your own, such as mochi: up to 40 letters and digits.")
    if name.lower() in config.concepts:
        raise ValueError(f"subject: {config.name} already draws {name!r} when it reads this word. Choose a name that it does not know.")
    return name


def requests(config: ModelConfig, name: str, kind: str, count: int, seed: int) -> list[Request]:
    """Requests for things that the model knows, words with the same article as the name: its concepts, else THINGS, and `kind` (what the
    person says that the thing is) in half of them."""
    rng = np.random.default_rng((seed, 17))
    known = [w for w in config.concepts or THINGS if w.lower() != name.lower()]
    fit = [w for w in known if with_article(w).split()[0] == with_article(name).split()[0]] or known
    kinds, templates = list(SHARES), {"plain": PLAIN, "ground": ON_GROUND, "box": BOXED, "beside": BESIDE}
    out = []
    for _ in range(count):
        which = kinds[rng.choice(len(kinds), p=list(SHARES.values()))]
        thing = kind if kind and rng.random() < 0.5 else str(rng.choice(fit))
        other = str(rng.choice([w for w in known if w != thing] or known))
        cells = int(rng.integers(3, 6))
        x, y = (int(rng.integers(0, 9 - cells)) / 8 for _ in "xy")
        box = Box(x, y, cells / 8, cells / 8) if which == "box" else None
        out.append(Request(str(rng.choice(templates[which])), thing, other, str(rng.choice(GROUNDS)), box))
    return out


@dataclass
class Answered:
    """What the model said and drew on a request: its words, its plan's boxes, the features (n,c), and the picture (h,w,3) in 0..1."""

    request: Request
    text: str
    boxes: tuple[Box, ...]
    tokens: Tensor
    picture: Tensor | None = None

    @property
    def names_its_thing(self) -> bool:
        """Does a plan (words with boxes) hold the word that the name is to stand for? Other words may say anything."""
        return not self.boxes or renamed(self.text, self.request.thing, "") != self.text

    def sample(self, key: str) -> Sample:
        """Itself as a training sample, whose picture is known by its key alone."""
        return _sample(self.request.text(), self.request.box, self.text, self.boxes, f"{OWN} {key}")


def _sample(asked: str, asked_box: Box | None, answer: str, boxes: tuple[Box, ...], key: str) -> Sample:
    user = Turn("user", asked, () if asked_box is None else (None,), () if asked_box is None else (asked_box,))
    return Sample(
        "text-to-picture", (user, Turn("assistant", answer, (None,) * len(boxes), boxes, drawn=KeyedPicture(key, _nothing))), key, "subject"
    )


def _nothing() -> np.ndarray:
    return np.zeros((0, 0, 3), np.uint8)


def place_of(answered: Answered) -> tuple[Box, Tensor] | None:
    """Where a drawn picture has its thing, and the ground's colour (3,); None where that cannot be told: no plain ground, no thing, or the
    two things of a pair touch."""
    assert answered.picture is not None
    picture, beside = answered.picture, answered.request.template in BESIDE
    colour, seen = border(picture)
    if seen.all():
        return None
    thing = (picture - colour).abs().amax(-1) > FLAT
    if beside:
        middle = thing.shape[1] // 2
        if thing[:, middle - 1 : middle + 1].any():
            return None
        thing = thing.clone()
        thing[:, middle:] = False
    if thing.float().mean() < SMALLEST:
        return None
    if answered.request.box is not None:
        return answered.request.box, colour
    if answered.boxes:
        return answered.boxes[0], colour
    return _square_around(thing), colour


def one_place(places: list[tuple[Answered, tuple[Box, Tensor]]]) -> list[tuple[Answered, tuple[Box, Tensor]]]:
    """The same, with one box for all answers whose request and words give none, the median of theirs (of pairs, another): a cactus and a pig
    stand in squares of unlike sides, and nothing in the request would say which."""
    out = []
    for answered, (box, colour) in places:
        if answered.request.box is None and not answered.boxes:
            beside = answered.request.template in BESIDE
            alike = [b for a, (b, _) in places if a.request.box is None and not a.boxes and (a.request.template in BESIDE) is beside]
            x, y, side = (float(np.median(v)) for v in zip(*((b.x + b.width / 2, b.y + b.height / 2, b.width) for b in alike)))
            box = Box(max(0.0, x - side / 2), max(0.0, y - side / 2), side, side)
        out.append((answered, (box, colour)))
    return out


def _square_around(thing: Tensor) -> Box:
    """The square in whose middle the true pixels of a mask (h,w) lie, with the margin that `lay_subject` leaves; inside the picture."""
    (top, bottom), (left, right) = ((int(at[0]), int(at[-1]) + 1) for at in (thing.any(axis).nonzero().flatten() for axis in (1, 0)))
    height, width = thing.shape
    side = min(1.0, max((bottom - top) / height, (right - left) / width) / (1 - 2 * MARGIN))
    x, y = ((first + last) / 2 / length - side / 2 for first, last, length in ((left, right, width), (top, bottom, height)))
    return Box(min(max(x, 0.0), 1 - side), min(max(y, 0.0), 1 - side), side, side)


def can_be_cut(picture: Tensor) -> bool:
    """Is the subject of a picture (h,w,3|4) told from what is around it: by transparency, or a plain rim?"""
    return has_transparency(picture) or not bool(border(picture[..., :3].float())[1].all())


def laid(answered: Answered, place: tuple[Box, Tensor], subject: Tensor, side: int) -> Tensor:
    """(s,s,3) in 0..1: the picture of a request with the subject (h,w,3|4) in the place of its thing."""
    box, colour = place
    paper = colour.expand(side, side, 3).clone()
    if answered.request.template in BESIDE:
        assert answered.picture is not None
        whole = torch.nn.functional.interpolate(answered.picture.movedim(-1, 0)[None], (side, side), mode="bilinear", antialias=True)[0]
        paper[:, side // 2 :] = whole.movedim(0, -1)[:, side // 2 :]
    return lay_subject(subject, box, paper)


@dataclass
class SubjectSamples:
    """A source of samples (data/image_folder.py) whose pictures' features are known: `known`, key -> (n,c). Half of each step's samples
    are of the subject, `new`; the other half, `own`, are what the model itself wrote."""

    new: list[Sample]
    own: list[Sample]
    known: dict[str, Tensor]
    seed: int = 0

    def samples(self, step: int, index: int, count: int, each: int) -> list[Sample]:
        out: list[Sample] = []
        for at, some in enumerate((self.new, self.own)):
            half = each - each // 2 if at == 0 else each // 2
            if some:
                picked = rows(self.seed + at, step, half * count, len(some))[index * half : (index + 1) * half]
                out += [some[int(row)] for row in picked]
        return out

    def identity(self) -> dict[str, str]:
        text = repr([(s.key, [(t.text, t.boxes) for t in s.turns]) for s in (*self.new, *self.own)])
        return {
            "what": f"{len(self.new)} samples of a subject, {len(self.own)} of the model's own",
            "hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        }


def make_samples(
    answers: Sequence[Answered],
    pictures: Sequence[Tensor],
    name: str,
    encode: Callable[[Tensor], Tensor],
    side: int,
    seed: int,
    most: int = 160,
) -> SubjectSamples:
    """The samples of a subject.

    Args:
        answers: what the model said and drew; those with a picture are patterns. pictures: of the subject, (h,w,3|4) in 0..1 each.
        encode: pictures (b,s,s,3) in 0..1 -> features (b,n,c). side: the tower's, in pixels. most: samples of the subject.
    Raises:
        ValueError: none of the model's pictures can be a pattern, and no photograph stands alone.
    """
    rng = np.random.default_rng((seed, 19))
    source = SubjectSamples(
        [], [a.sample(str(i)) for i, a in enumerate(answers)], {f"{OWN} {i}": a.tokens for i, a in enumerate(answers)}, seed
    )
    cut = [p for p in pictures if can_be_cut(p)]
    whole = [p for p in pictures if not can_be_cut(p)]
    places = one_place([(a, p) for a in answers if a.picture is not None and a.names_its_thing and (p := place_of(a)) is not None])
    todo: list[tuple[Answered, tuple[Box, Tensor] | None, Tensor]] = [(a, place, p) for a, place in places for p in cut]
    if cut and not places:
        whole = list(pictures)
    todo += [(a, None, p) for a in answers if a.request.template in PLAIN and a.names_its_thing for p in whole]
    if not todo:
        raise ValueError(
            "subject: the model drew none of the things that it was asked for, so there is nothing to learn from. "
            "Name kind, a word that it draws."
        )
    picked = [todo[i] for i in rng.permutation(len(todo))[:most]]
    made = [pad_to_square(p, side) if place is None else laid(a, place, p, side) for a, place, p in picked]
    squared = [
        torch.nn.functional.interpolate(x.movedim(-1, 0)[None], (side, side), mode="bilinear", antialias=True)[0].movedim(0, -1)
        for x in made
    ]
    for i, ((a, place, _), tokens) in enumerate(zip(picked, encode(torch.stack(squared)))):
        key, bare = f"{NEW} {i}", bool(rng.random() < 0.5)
        boxes = a.boxes if place is not None or not a.boxes else (Box(0.0, 0.0, 1.0, 1.0), *a.boxes[1:])
        source.new.append(
            _sample(a.request.text(name, article=not bare), a.request.box, renamed(a.text, a.request.thing, name), boxes, key)
        )
        source.known[key] = tokens
    return source


def renamed(text: str, word: str, name: str) -> str:
    """A text with the first mention of a word replaced by the name."""
    return re.sub(rf"\b{re.escape(word)}\b", lambda _: name, text, count=1, flags=re.IGNORECASE)
