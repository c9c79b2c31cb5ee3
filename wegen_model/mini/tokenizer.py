"""The miniature's tokenizer: byte-level BPE over its own conversations, so that known words are one token and others bytes.

Case, accents, full-width letters and repeated spaces are folded by the normaliser in tokenizer.json alone: whoever reads the file folds
the same way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..chat.tokenizer import special_tokens
from .tasks import corpus
from .world.concepts import COLOURS, CONCEPTS, HELD_OUT_NAMES, NAMES, OFFERED_STYLES

if TYPE_CHECKING:
    from tokenizers.normalizers import Sequence

SIZE = 600  # ids of text; the special tokens follow


def build_tokenizer(folder: Path, samples: int = 20_000, features: int = 64) -> None:
    """Write tokenizer.json and added_tokens.json; a pure function of the conversations."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normaliser()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(r" ?\[/?INST\]|\n| ?\w+| ?[^\w\s]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    # every word with and without its space, the commonest first: a name must be one token wherever it stands
    texts = ["[INST]", "[/INST]", " [/INST]", "\n"] * 50 + list(corpus(samples))
    known = (*NAMES, *HELD_OUT_NAMES, *COLOURS, *OFFERED_STYLES)
    texts += [lead + word + tail for word in known for lead in ("", " ") for tail in ("", "s")] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    table = special_tokens(tokenizer.get_vocab_size(), features)
    (folder / "added_tokens.json").write_text(json.dumps(table, indent=1))


def normaliser() -> Sequence:
    """What text goes through before it is cut into tokens; the ids of lower-case text with single spaces stay what they are without it.

    The emoji of a known thing becomes its name. The prompt's own [INST] and [/INST] go through it too, and keep their capitals.
    """
    from tokenizers import Regex
    from tokenizers.normalizers import NFKD, Lowercase, Replace, Sequence, StripAccents

    emoji = [Replace(chr(int(c.codepoint, 16)), f" {c.name} ") for c in CONCEPTS if not c.held_out]
    marks = [Replace("[inst]", "[INST]"), Replace("[/inst]", "[/INST]")]
    return Sequence([*emoji, NFKD(), StripAccents(), Lowercase(), *marks, Replace(Regex(r"[ \t]+"), " ")])
