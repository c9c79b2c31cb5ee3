"""Noun phrases of a caption, each with its place in the text.

Without a parser: a phrase begins at an article, a number or a possessive and ends before the next preposition, verb of state, conjunction
or stop, which suits the short declarative sentences of captioners. With spaCy (`--phrases spacy:en_core_web_sm`): its noun chunks.
Things that cannot be pointed at are left out.
"""

from __future__ import annotations

import re

BEGIN = set("a an the one two three four five six seven eight nine ten some several many his her its their another".split())
STOP = set(
    """
on in at of with and or to from by for near beside behind under over above below between into onto through while as is are
was were be being has have had which that who where then than but against around along across during inside outside up down
off out stands stand sits sit lies lie runs run moves move holds hold holding wearing standing sitting lying running moving
looking riding
""".split()
)
ABSTRACT = set(
    """
background scene picture image photo frame view time day night side middle top bottom left right front back centre center way
lot group kind sort part air
""".split()
)


def noun_phrases(caption: str) -> list[tuple[int, int, str]]:
    """(start, end, text) of each phrase, in order."""
    out, open_ = [], None
    words = [*re.finditer(r"[\w'-]+|[.,;:!?]", caption), None]
    last = 0
    for match in words:
        word = match[0].lower() if match else "."
        ends = word in STOP or word in BEGIN or not re.match(r"\w", word)
        if open_ is not None and ends:
            text = caption[open_:last]
            head = text.split()[-1].lower()
            if len(text.split()) > 1 and head not in ABSTRACT:
                out.append((open_, last, text))
            open_ = None
        if match and word in BEGIN:
            open_ = match.start()
        if match:
            last = match.end()
    return out


def spacy_phrases(model: str):
    """`noun_phrases` by a spaCy pipeline. Not run here: needs its model."""
    try:
        import spacy
    except ImportError as error:
        raise RuntimeError(f"spacy is not installed ({error}); pip install spacy, or leave --phrases out.") from error
    pipeline = spacy.load(model)

    def find(caption: str) -> list[tuple[int, int, str]]:
        return [(c.start_char, c.end_char, c.text) for c in pipeline(caption).noun_chunks if c.root.lemma_.lower() not in ABSTRACT]

    return find


def head(phrase: str) -> str:
    """What makes two phrases one thing: the words without article, lower-case."""
    words = phrase.lower().split()
    return " ".join(words[1:] if words and words[0] in BEGIN else words)
