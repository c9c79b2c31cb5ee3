"""What nodes and the command line call: `WeGen` sees, talks and draws; `WeGenDecoder` (decoder_pipeline.py) paints.

Parts load when first needed, through the runtime; a part that is absent is an error only in the call that needs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .chat import commands as spoken
from .chat import prompt
from .chat.conversation import Conversation, Turn
from .chat.memory import recall
from .chat.reference_cutout import shown
from .chat.tokenizer import Tokenizer
from .checkpoint import model_folder
from .config import ModelConfig
from .decoder_pipeline import WeGenDecoder
from .encoder_pipeline import WeGenEncoder
from .features import Features, check_space
from .generation import generate
from .models.llama import Cache, Language
from .models.projectors import Projectors
from .models.quantization import scratch_bytes
from .runtime import Component, Runtime
from .validation import check_draw, check_number, check_reference, check_seed


class WeGen(WeGenEncoder):
    """One model folder: an encoder that also talks and draws. See `load`."""

    def __init__(self, folder: Path, config: ModelConfig, runtime: Runtime):
        super().__init__(folder, config, runtime)
        self._tokenizer: Tokenizer | None = None
        self._painter: WeGenDecoder | None = None
        self.loras: tuple[tuple[Path, float], ...] = ()
        self.subjects: tuple[str, ...] = ()  # names of things that its LoRAs taught it
        self._base: WeGen | None = None  # whose parts it shares, but for the language model

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "wegen-mini",
        dtype: torch.dtype | None = None,
        runtime: Runtime | None = None,
        roots: tuple = (),
        quantize: str = "",
    ) -> WeGen:
        """Open a model folder; weights are read when a call first needs them.

        `dtype` and `quantize` (of tower and language model: q8_0, q4_0 or fp8) are for the default runtime; a runtime that
        is given chooses its own.

        Raises:
            CheckpointError: no such folder, or one without a valid config.json.
        """
        folder = model_folder.resolve(name_or_path, roots)
        return cls(folder, model_folder.read_config(folder), runtime or Runtime(dtype=dtype, blocks=quantize))

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.load(self.folder)
        return self._tokenizer

    @property
    def painter(self) -> WeGenDecoder:
        """The model's own decoder."""
        if self._painter is None:
            self._painter = WeGenDecoder.load(self.folder, self.runtime, blank=self.blank)
        return self._painter

    def with_lora(self, path: str | Path, strength: float = 1.0) -> WeGen:
        """The same model with an adapter (models/lora.py) added: its language model's layers to the language model, which is read again,
        its UNet's to the decoder. This one stays as it is; all other parts are shared.

        Raises:
            ValueError: no such adapter, or one for another space of features or another tokenizer.
        """
        from .models.lora import of_part, read_lora_and_metadata

        path, space = Path(path), self.config.features.space
        tensors, meta = read_lora_and_metadata(path)
        if meta.get("wegen_space", space) != space:
            raise ValueError(f"lora: {path.name} was trained for the features '{meta['wegen_space']}', this model writes '{space}'.")
        out = WeGen(self.folder, self.config, self.runtime)
        out._base, out._tokenizer, out._painter = self, self._tokenizer, self.painter if self.config.unet else None
        out.loras, out.subjects = self.loras, self.subjects
        if of_part(tensors, "unet"):
            out._painter = self.painter.with_lora(path, strength)
        if of_part(tensors, "language"):
            if meta.get("wegen_tokenizer", self.tokenizer.hash) != self.tokenizer.hash:
                raise ValueError(f"lora: {path.name} was trained with another tokenizer than that of '{self.config.name}'. Train it anew.")
            out.loras = (*out.loras, (path, strength))
            if name := meta.get("wegen_subject"):
                out.subjects = (*out.subjects, name)
        return out

    def component(self, name: str) -> Component:
        """A loaded component; with adapters, those of the model without them but for the language model."""
        if self._base is not None and not (name == "language" and self.loras):
            return self._base.component(name)
        return super().component(name)

    def adapt(self, name: str, module: torch.nn.Module) -> None:
        from .models.lora import merge, of_part, read_lora

        for path, strength in self.loras if name == "language" else ():
            merge(module, "language", of_part(read_lora(path), "language"), strength, f"lora {path.name}")

    def modules(self) -> dict[str, Callable[[Any], torch.nn.Module]]:
        c = self.config
        return super().modules() | {
            "language": lambda ops: Language(c.language, ops),
            "projectors": lambda ops: Projectors(c.features, c.language.width, ops),
        }

    def encode_references(self, conversation: Conversation, reserve: int = 0, trim_oldest: bool = False) -> Conversation:
        """The same conversation with the features of every reference filled in that the prompt carries (`_prompt`, the same arguments).

        Raises:
            ValueError: it was held with another model, or holds features of another space, or does not fit.
        """
        prompt.check_tokenizer(conversation, self.tokenizer)
        carried = self._carried(conversation, reserve, trim_oldest)
        turns = []
        for number, turn in enumerate(conversation.turns, 1):
            references = []
            for k, r in enumerate(turn.references, 1):
                where = f"WeGen Chat, turn {number}, image_{k}"
                if r.features is None and r.picture is not None and id(turn) in carried:
                    picture = check_reference(r.picture[:1], where)
                    if self.config.references == "placed":
                        picture = shown(picture[0], r.box, self.config.vision.image_size)[None]
                    r = replace(r, features=self.encode(picture, where=where))
                elif r.features is not None:
                    r.features.check_finite(where)
                    self._check_space(r.features, where)
                references.append(r)
            for k, drawn in enumerate(turn.pictures):
                if isinstance(drawn, Features) or id(turn) in carried:
                    self._check_space(turn.written(k), f"WeGen Chat, the picture of turn {number}")
            unchanged = all(a is b for a, b in zip(references, turn.references))
            turns.append(turn if unchanged else replace(turn, references=tuple(references)))
        return replace(conversation, turns=tuple(turns), tokenizer=self.tokenizer.hash)

    def _carried(self, conversation: Conversation, reserve: int, trim_oldest: bool) -> set[int]:
        """Of the turns whose pictures the prompt shows: id(turn). Nothing is encoded for it."""
        c = self.config
        conversation = recall(conversation, c.memory)
        laid = prompt.layout(
            conversation, self.tokenizer, c.language.positions, c.features.count, reserve, trim_oldest=trim_oldest, memory=c.memory
        )
        return {id(conversation.turns[slot.turn]) for slot in laid.slots}

    def _prompt(self, conversation: Conversation, reserve: int, trim_oldest: bool) -> prompt.Prompt:
        c = self.config
        conversation = recall(conversation, c.memory)
        return prompt.build(conversation, self.tokenizer, c.language.positions, reserve, trim_oldest=trim_oldest, memory=c.memory)

    def _model(self, device: torch.device) -> generate.Model:
        place = self.runtime.place("language")
        return generate.Model(self.component("language").module, self.component("projectors").module, self.tokenizer, device, place.dtype)

    @torch.no_grad()
    def chat(
        self,
        conversation: Conversation,
        *,
        picture: str = "auto",
        rewrite: bool = False,
        temperature: float = 0.0,
        top_p: float = 0.9,
        seed: int = 0,
        max_tokens: int = 256,
        trim_oldest: bool = False,
        commands: bool | None = None,
    ) -> Conversation:
        """Answer the last user turn: p(text | c), until the turn ends or opens a picture.

        Args:
            picture: "auto" as the model decides, "always" opens one after the reply (a model that `refuses` may answer in words
                instead), "never".
            rewrite: prompt self-rewriting: the model first writes a description of its own, and the picture follows from it.
            temperature: 0 takes the likeliest word; above, sampled from the `top_p` nucleus with `seed`.
            trim_oldest: past the model's positions, forget the oldest exchanges instead of an error.
            commands: "undo", "again", "the first one" (chat/commands.py) are the conversation's to follow. None: where the prompt carries
                only some exchanges (ModelConfig.memory), so that the model cannot; a model that reads all of them reads these words too.
        Returns:
            the conversation with the assistant's turn; `open_image` says whether a picture waits to be drawn. After "undo" or "the first
            one" it is an earlier conversation, `notice` says so in words, and `draw` gives its picture as it was drawn.
        """
        if picture not in ("auto", "always", "never"):
            raise ValueError(f"picture is {picture!r}; choose auto, always or never.")
        if not conversation.turns or conversation.turns[-1].role != "user":
            raise ValueError("the conversation has no new message to answer: add one.")
        check_number("WeGen Chat", "temperature", temperature, 0)
        check_number("WeGen Chat", "top_p", top_p, 1e-6, 1)
        check_seed("WeGen Chat", seed)
        command = spoken.of(conversation.turns[-1]) if commands or (commands is None and self.config.memory) else None
        if command:
            before = conversation.taken_back()
            conversation = spoken.apply(before, command)
            if conversation.notice:
                return conversation
            seed = spoken.another_seed(before, seed)
        self._need("language", "projectors")
        n = self.config.features.count
        reserve = max_tokens + (n + 2 if picture != "never" else 0)
        conversation = self.encode_references(conversation, reserve, trim_oldest)
        self._notes(conversation, picture)
        context = self._prompt(conversation, reserve, trim_oldest)
        self.component("projectors")
        with (
            self.runtime.use(self.component("language"), self._room(1, len(context), max_tokens + 1)) as device,
            self.runtime.use(self.component("projectors")),
        ):
            ids, opened = generate.write_text(
                self._model(device),
                context,
                picture=picture,
                rewrite=rewrite,
                refuses=self.config.refuses,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                max_tokens=max_tokens,
                runtime=self.runtime,
                show=lambda ids: prompt.parse(ids, self.tokenizer)[0],
            )
        text, boxes = prompt.parse(ids[:-1] if opened else ids, self.tokenizer)
        turn = Turn("assistant", text, boxes, tuple(ids), open_image=opened, seed=seed)
        return replace(conversation, turns=(*conversation.turns, turn))

    @torch.no_grad()
    def draw(
        self,
        conversation: Conversation,
        *,
        guidance: float = 1.0,
        mode: str = "autoregressive",
        readout: str = "aligned",
        keep: tuple[Features, Tensor] | None = None,
        trim_oldest: bool = False,
    ) -> tuple[Features, Conversation]:
        """Write the features of the picture that the last turn opened: P(x|c), one after another. One that a command brought back is
        given as it was written.

        Args:
            guidance: over features, 1 is off. mode: "autoregressive", or "parallel" where the weights were trained for it.
            readout: "aligned", or "released" (the public code's off-by-one).
            keep: earlier features and a mask (rows, columns) of the cells that stay as they are.
        Raises:
            ValueError: no open picture, or options that exclude each other.
        """
        if (again := conversation.shown_again) is not None:
            if keep is not None:
                self.runtime.warn("AR Feature Decode: the picture was brought back as it was; keep_features is not used.")
            return again, conversation
        check_draw(conversation, self.config, guidance, mode, readout, keep)
        self._need("language", "projectors")
        n = self.config.features.count
        conversation = self.encode_references(conversation, n + 1, trim_oldest)
        context = self._prompt(conversation, n + 1, trim_oldest)
        kept = None
        if keep is not None:
            earlier, mask = keep
            earlier.check_finite("AR Feature Decode, keep_features")
            self._check_space(earlier, "AR Feature Decode, keep_features")
            kept = (earlier.tokens[0], mask.reshape(-1) > 0.5)
        rows = 2 if guidance != 1 else 1
        with (
            self.runtime.use(self.component("language"), self._room(rows, len(context), n)) as device,
            self.runtime.use(self.component("projectors")),
        ):
            tokens = generate.write_features(
                self._model(device), context, guidance=guidance, mode=mode, readout=readout, keep=kept, runtime=self.runtime
            )
        features = self.features(tokens[None])
        last = conversation.turns[-1]
        ids = None if last.ids is None else (*last.ids, *prompt.picture_ids(n, self.tokenizer))
        turn = replace(last, ids=ids, pictures=(*last.pictures, features), open_image=False)
        return features, conversation.with_last(turn)

    def decode(self, features: Features, **options) -> Tensor:
        """Paint with the model's own decoder: see `WeGenDecoder.decode`."""
        return self.painter.decode(features, **options)

    def _check_space(self, features: Features, where: str) -> None:
        f = self.config.features
        note = check_space(features, f.space, f.tower, f"the model '{self.config.name}'", where, width=f.width)
        if note:
            self.runtime.warn(note)

    def _need(self, *parts: str) -> None:
        """Refuse at once, before other parts are loaded, what the folder cannot do."""
        for part in parts:
            if part not in self._components and not model_folder.files(self.folder, part):
                model_folder.missing(self.folder, part)

    def _room(self, rows: int, prompt: int, new: int) -> int:
        """Bytes that generating needs beside the weights: the cache, the activations of reading the prompt, and one dequantized layer."""
        c, dtype = self.config.language, self.runtime.place("language").dtype
        return Cache.bytes(c, rows, prompt + new, dtype) + c.bytes(prompt, dtype) + scratch_bytes(self.component("language").module)

    def _notes(self, conversation: Conversation, picture: str) -> None:
        turn = conversation.turns[-1]
        pictures = sum(r.has_picture for r in turn.references)
        carried = recall(conversation, self.config.memory).turns
        earlier = any(t.pictures for t in carried[prompt.first_kept(carried, self.config.memory) :])
        if pictures > 3:
            self.runtime.warn(f"{pictures} references: the paper reports that identity suffers past three.")
        known = () if self.config.refuses else self.config.concepts  # a model that refuses says it itself
        if any(name.lower() in turn.text.lower() for name in self.subjects):
            return
        words = set(re.findall(r"[a-z]+", self.tokenizer.decode(self.tokenizer.encode(turn.text)).lower()))  # as the model reads it
        names = {form for c in known for form in (c, c + "s", c + "es", c[:-1] + "ies", c[:-2] + "i")}
        if known and picture != "never" and not pictures and not earlier and not words & names:
            self.runtime.warn(
                f"{self.config.name} knows {len(known)} things and none of them is in «{turn.text[:60]}»: "
                f"the picture will be a guess. It knows {', '.join(known)}."
            )
