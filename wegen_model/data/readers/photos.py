"""Pictures alone, to be painted again: Object365 and OpenImages.

Object365    images/v1/patchN/*.jpg, images/v2/patchN/*.jpg and zhiyuan_objv2_train.json in train/ (and val/); mmdetection's guide has
             train/patchN/*.jpg; the first version is flat, train/obj365_train_*.jpg. The boxes are not needed for reconstruction, so
             the 6 GB of annotations are not read.
OpenImages   github.com/cvdfoundation/open-images-dataset: train_0.tar.gz … as train_0/ … or train/, validation/, test/;
             files are named by 16 hexadecimal digits.
What each was checked against: docs/data.md. Not run on the real files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .. import tasks
from ..items import Item, Skips
from ..sample import Sample
from .files import picture, rng

OBJECT365 = ("images/v*/patch*/*.jpg", "*/images/v*/patch*/*.jpg", "train/patch*/*.jpg", "val/patch*/*.jpg", "patch*/*.jpg") + (
    "train/obj365_*.jpg",  # the first version
    "images/train/obj365_*.jpg",
)
OPENIMAGES = ("train*/*.jpg", "validation/*.jpg", "test/*.jpg")


def _each(folder: Path, patterns: tuple[str, ...], wanted: str) -> Iterator[Item]:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if re.fullmatch(wanted, path.stem):
                key = str(path.relative_to(folder))
                yield Item(key, partial(_again, path, key))


def _again(path: Path, key: str) -> Sample:
    return tasks.reconstruction(key, picture(path), rng(key))


def object365(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    return _each(folder, OBJECT365, r".*")


def openimages(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    return _each(folder, OPENIMAGES, r"[0-9a-f]{16}")
