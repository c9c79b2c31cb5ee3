"""Trains a subject: an adapter of the language model, so that "a photo of mochi" draws the thing in a handful of pictures.

n features · c feature width

What is trained is the adapter alone (models/lora.py, 7 layers of each block); projectors, tower and decoder stay, so that its file holds
all that was learned and fits every decoder. The samples are made of what the model itself writes (subject_samples.py); the loop, its
checkpoints and its loss are those of `stage-1`. Cancelling keeps what was learned: the same call goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..chat import prompt
from ..chat.conversation import Conversation
from ..chat.reference_cutout import pad_to_square
from ..checkpoint import model_folder
from ..config import ModelConfig
from ..data.image_folder import listing
from ..data.sample import Sample, conversation
from ..features import Features
from ..generation import generate
from ..images import PictureError, read_reference, resize_float
from ..models.lora import Adapters
from ..progress import ProgressEvent
from ..runtime import Runtime
from .encoders import EncodedPictures
from .finetune import Ticks, write_lora
from .modules import PRECISIONS, Components, load
from .presets import SUBJECT
from .settings import Settings, check
from .stages.language import LanguageTask
from .subject_samples import ON_GROUND, PLAIN, Answered, Request, SubjectSamples, check_name, make_samples, requests
from .trainer import train

AT_ONCE = 16  # pictures that are written, and painted, together
REHEARSED = 64  # requests for known things
PATTERNS = 24  # of them are painted, to be patterns for the subject
PREVIEWED = 3  # samples of the subject that previews show, side by side
LEAST, MOST = 1, 64  # pictures of the subject


def subject_settings(config: ModelConfig, device: torch.device, **changes: Any) -> Settings:
    """SUBJECT with what a person chooses, and what the model was trained with: parallel writing where it knows it, and features fed back
    with noise where they are normalised (exposure error, stages/language.py)."""
    f, cpu = config.features, device.type == "cpu"
    given = {name: value for name, value in changes.items() if value is not None}
    steps = given.get("steps", SUBJECT.steps)
    own: dict[str, Any] = dict(
        parallel=0.25 if f.parallel else 0.0,
        feedback_noise=0.6 if f.normalised else 0.0,
        feedback_own=0.65 if f.normalised else 0.0,
        feedback_own_from=0.0,
        precision="no" if cpu else "bf16",
        checkpointing=not cpu,
        warmup=min(SUBJECT.warmup, steps // 10),
        save_every=max(1, min(SUBJECT.save_every, steps // 4)),
    )
    return check(dataclasses.replace(SUBJECT, **(own | given)))


@dataclass
class SubjectTrained:
    """The adapter's tensors as its file holds them, the losses as they were logged, {step: loss}, the checked name, what tells the run
    from others, and the samples."""

    tensors: dict[str, Tensor]
    losses: dict[int, float]
    name: str
    run: str
    samples: SubjectSamples


def identity(model: Any, pictures: Sequence[Tensor], name: str, kind: str, s: Settings) -> str:
    """Eight letters that change with model, pictures, name or settings: the same run goes on, another one begins anew."""
    weights = [
        (p.name, p.stat().st_size, p.stat().st_mtime_ns)
        for part in ("language", "projectors")
        for p in model_folder.files(model.folder, part)
    ]
    h = hashlib.sha256(json.dumps([str(model.folder), weights, name, kind, dataclasses.asdict(s)]).encode())
    for picture in pictures:
        h.update((picture * 255).round().byte().contiguous().numpy().tobytes())
    return h.hexdigest()[:8]


def train_subject(
    model: Any,
    pictures: Sequence[Tensor],
    name: str,
    s: Settings,
    work: Path,
    *,
    kind: str = "",
    runtime: Runtime | None = None,
    device: torch.device | None = None,
    preview_every: int = 0,
    make_room: Callable[[], None] = lambda: None,
) -> SubjectTrained:
    """Train the adapter, or go on with it.

    Args:
        model: a `WeGen`, which answers, draws and paints through its own runtime; its weights are read anew for training.
        pictures: of the subject, (h,w,3), or (h,w,4) with opacity, in 0..1. name: what it is called; kind: a word that the model knows and
            that says what it is, or empty. work: folder of runs; this
            one's, NAME-RUN, holds its checkpoints and log. device: where it is trained (default: the runtime's).
        make_room: called before training, when the model has drawn: a host unloads it.
    Raises:
        ValueError: a name that will not do, no pictures, or a model that draws nothing.
        CheckpointError: the model folder has no language model.
    """
    name, config = check_name(name, model.config), model.config
    if not LEAST <= len(pictures) <= MOST:
        raise ValueError(f"subject: {len(pictures)} pictures; {LEAST} to {MOST} are taken, and 3 to 8 are best.")
    runtime = runtime or model.runtime
    device = device or runtime.device
    run = identity(model, pictures, name, kind, s)
    folder = work / f"{file_name(name)}-{run}"
    with torch.inference_mode(False), torch.enable_grad():
        components = load(model.folder, "stage-1", frozen=PRECISIONS[s.precision], lora=True, decoder=False, tower=False)
        source = _samples(model, components, [p.clone() for p in pictures], name, kind, s.seed, device, runtime)
        encoded = EncodedPictures(components, 0, torch.float32)
        encoded.known_features |= {(key, None): tokens for key, tokens in source.known.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            task = LanguageTask("subject", components, source, s, encoded, adapter_alone=True)
        components.freeze(task.projectors, device=device, dtype=None)

        asked = [_opened(sample, config.features.count) for sample in source.new[:PREVIEWED]]

        def preview(step: int) -> Tensor:
            with torch.no_grad():
                return torch.cat(list(model.decode(_features(config, write(components, asked, device)))), 1)

        make_room()
        task.language.to(device)
        train(task, folder, Ticks(runtime, device, preview_every, preview), alone=True)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert isinstance(task.model, Adapters)
    return SubjectTrained(task.model.tensors(), {row["step"]: row["loss"] for row in log if "loss" in row}, name, run, source)


def _samples(
    model: Any, components: Components, pictures: list[Tensor], name: str, kind: str, seed: int, device: torch.device, runtime: Runtime
) -> SubjectSamples:
    """What the model answers to requests for known things, and the subject's samples made after it."""
    asked = requests(model.config, name, kind, REHEARSED, seed)
    talks, heard = [], []
    for i, request in enumerate(asked):
        talk = model.chat(request.conversation(), picture="always", max_tokens=64)
        if talk.open_image:  # a model that says in words that it cannot draw something did not draw it
            talks.append(talk)
            heard.append(request)
        runtime.tick(ProgressEvent("other", i + 1, len(asked), label="what the model says"))
    if not talks:
        raise ValueError(f"subject: {model.config.name} draws none of the things that it was asked for. Name kind, a word that it draws.")
    tokens = []
    for at in range(0, len(talks), AT_ONCE):
        tokens.append(write(components, talks[at : at + AT_ONCE], device))
        runtime.tick(ProgressEvent("other", min(at + AT_ONCE, len(talks)), len(talks), label="what the model writes"))
    components.need_language().cpu()
    answers = [
        Answered(request, talk.turns[-1].text, tuple(r.box for r in talk.turns[-1].references if r.box is not None), one)
        for request, talk, one in zip(heard, talks, torch.cat(tokens).unbind())
    ]
    for at in range(0, min(PATTERNS, len(answers)), AT_ONCE):
        some = answers[at : min(at + AT_ONCE, PATTERNS)]
        painted = model.decode(_features(model.config, torch.stack([a.tokens for a in some])), seed=seed)
        for answer, picture in zip(some, painted):
            answer.picture = picture.clone()

    def encode(batch: Tensor) -> Tensor:
        return model.encode((batch * 255).round() / 255, where="subject, the pictures").tokens.clone()

    return make_samples(answers, pictures, name, encode, model.config.vision.image_size, seed)


def read_pictures(folder: Path, warn: Callable[[str], None]) -> list[Tensor]:
    """The pictures of a folder, (h,w,3|4) in 0..1; what cannot be read is left out and named.

    Raises:
        ValueError: none can be read.
    """
    out, found = [], listing(folder)[0]
    for path in found:
        try:
            out.append(read_reference(path)[0])
        except (OSError, PictureError) as error:
            warn(f"{path.name} cannot be read and was left out ({getattr(error, 'reason', error)}).")
    if not out:
        raise ValueError(f"{folder}: there is no picture in it that can be read. Put 3 to 8 pictures of the thing into it.")
    return out


def write_subject(root: Path, trained: SubjectTrained, model: Any, s: Settings) -> Path:
    """The adapter's file NAME.safetensors, or NAME_2 …, as write_lora names it."""
    meta = {"wegen_subject": trained.name, "wegen_tokenizer": model.tokenizer.hash}
    return write_lora(root, file_name(trained.name), trained.tensors, trained.run, model.config, s, meta)


def sheet(model: Any, trained: SubjectTrained, pictures: Sequence[Tensor]) -> Tensor:
    """(5,H,W,3): the first picture as the model sees it, and four drawings by the name, of a model with the adapter."""
    asked = [Request(t, trained.name, ground=g) for t, g in ((PLAIN[2], ""), *((ON_GROUND[0], g) for g in ("red", "teal", "yellow")))]
    drawn = []
    for request in asked:
        talk = model.chat(request.conversation(), picture="always", max_tokens=64)
        drawn.append(
            model.decode(model.draw(talk)[0]) if talk.open_image else torch.ones(1, model.config.decoder.size, model.config.decoder.size, 3)
        )
    painted = torch.cat(drawn)
    first = pad_to_square(pictures[0], painted.shape[1])
    return torch.cat([resize_float(first.movedim(-1, 0)[None], (painted.shape[1], painted.shape[2])).movedim(1, -1).clamp(0, 1), painted])


def file_name(name: str) -> str:
    """A subject's name as a file's."""
    return name.replace(" ", "_")


def _opened(sample: Sample, n: int) -> Conversation:
    """A sample's conversation up to its picture, which is to be drawn."""
    talk = conversation(sample, n)
    return talk.with_last(dataclasses.replace(talk.turns[-1], pictures=(), open_image=True))


def _features(config: ModelConfig, tokens: Tensor) -> Features:
    f = config.features
    return Features(tokens, (f.grid[0], f.grid[1]), f.space, f.tower)


@torch.no_grad()
def write(components: Components, talks: Sequence[Conversation], device: torch.device) -> Tensor:
    """(b,n,c) raw features of the pictures that conversations opened, by the weights in training; on the CPU."""
    writer, c = components.need_language(), components.config
    tokenizer, n = components.need_tokenizer(), c.features.count
    first = writer.language.model.norm.weight
    model = generate.Model(writer.language.to(device), writer.projectors.to(device), tokenizer, device, first.dtype)
    prompts = [prompt.build(talk, tokenizer, c.language.positions, n + 1, memory=c.memory) for talk in talks]
    return generate.write_features(model, prompts)
