"""Fixtures that several test files share: the public release's miniature, converted once a session."""

import pytest
import torch
from wegen.tests import golden_files as stored
from wegen.tests.support import tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """A folder with `checkpoint/` in the public layout and golden.safetensors. Not to be written to."""
    return stored.unpack(tmp_path_factory.mktemp("official_tiny"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A tiny random model folder with a byte tokenizer. Not to be written to."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def golden(release):
    """Golden tensors by name."""
    return stored.load(release)


@pytest.fixture(scope="session")
def converted(release, tmp_path_factory):
    """The checkpoint as our model folder. Not to be written to."""
    from wegen.wegen_model.checkpoint.convert import convert

    target = tmp_path_factory.mktemp("converted") / "tiny"
    convert(release / "checkpoint", target)
    return target
