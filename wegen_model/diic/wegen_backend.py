"""A WeGen of one's own as captioner, detector and embedder: `wegen:FOLDER`.

n features · c their width
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..chat.conversation import Box, Conversation, Reference, Turn
from ..pipeline import WeGen
from .models import OneByOne
from .noun_phrases import head

PROMPT = "<image_1> describe the picture"


class Own(OneByOne):
    def __init__(self, name: str):
        name, _, self.prompt = name.partition("#")
        self.model = WeGen.load(name)

    def ask(self, text: str, picture: np.ndarray, words: int = 24) -> Turn:
        """The answer's turn to a question about a picture, <image_1>; `words`: tokens at most."""
        shown = Reference(_tensor(picture)[None])
        return self.model.chat(Conversation().user(text, (shown,)), picture="never", max_tokens=words).turns[-1]


class Captioner(Own):
    """`wegen:FOLDER` or `wegen:FOLDER#PROMPT`; the prompt says where the picture stands (<image_1>)."""

    def caption(self, picture: np.ndarray) -> str:
        return " ".join(self.ask(self.prompt or PROMPT, picture, 160).text.split())


class Detector(Own):
    """Asks where each phrase is."""

    def detect(self, picture: np.ndarray, phrases: Sequence[str]) -> list[tuple[int, Box, float]]:
        out = []
        for i, phrase in enumerate(phrases):
            places = [r.box for r in self.ask(f"<image_1> where is the {head(phrase)}?", picture).references if r.box is not None]
            out += [(i, b, 1.0) for b in places[:1]]
        return out


class Embedder(Own):
    """(n c,) features of a crop, normalised as the language model reads them, of length 1."""

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        tokens = torch.cat([self.model.encode(_tensor(c)[None]).tokens for c in crops])
        with torch.no_grad():
            projectors = self.model.component("projectors").module
            rows = projectors.normalise(tokens.to(next(projectors.parameters()))).flatten(1).float()
        return torch.nn.functional.normalize(rows, dim=1).cpu().numpy()


def _tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(picture)).float() / 255
