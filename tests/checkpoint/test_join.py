"""The folder that training begins with: stock parts of three folders joined, projectors drawn anew."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.tests.cli.test_train import train
from wegen.tests.support import tiny_config, tiny_model
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.cli.main import main

PARTS = {"tower": ("vision",), "language": ("language",), "decoder": ("unet", "vae")}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A folder for each of tower, language and decoder. Not to be written to."""
    place = tmp_path_factory.mktemp("stock")
    for seed, (name, parts) in enumerate(PARTS.items()):
        tiny_model(place / name, seed, parts)
    return place


def join(stock, target, **other) -> list[str]:
    places = {name: str(other.get(name, stock / name)) for name in PARTS}
    return ["train", "start", *(text for name, place in places.items() for text in (f"--{name}", place)), str(target)]


def test_joined_parts_can_be_trained(stock, tmp_path):
    assert main(join(stock, tmp_path / "tiny")) == 0
    assert main(["inspect", str(tmp_path / "tiny")]) == 0
    assert set(model_folder.parts(tmp_path / "tiny")) == {"vision", "language", "projectors", "unet", "vae"}
    for name, parts in PARTS.items():
        for part in parts:
            old, new = (model_folder.read_tensors(model_folder.files(place, part)[0]) for place in (stock / name, tmp_path / "tiny"))
            assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)
    drawn = model_folder.read_tensors(model_folder.files(tmp_path / "tiny", "projectors")[0])
    assert len(drawn) == 2 and all(0 < v.abs().max() <= v.shape[1] ** -0.5 for v in drawn.values())
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(tmp_path / "pictures" / "0.png")
    for stage in ("visual-decoding", "stage-1"):
        assert train(tmp_path, stage, "--folder", str(tmp_path / stage)) == 0


def test_parts_that_do_not_fit_are_told(stock, tmp_path, capsys):
    assert main(join(stock, tmp_path / "x", tower=stock / "language")) == 2
    assert "language: the model folder has no vision" in capsys.readouterr().err
    assert main(join(stock, stock / "tower")) == 2 and "never touched" in capsys.readouterr().err
    narrow = tiny_config().features
    tiny_model(tmp_path / "other", parts=("vision",), features=dataclasses.replace(narrow, space="elsewhere"))
    assert main(join(stock, tmp_path / "x", tower=tmp_path / "other")) == 2
    assert "the tower writes 'elsewhere'. Choose a tower and a decoder of one space" in capsys.readouterr().err
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["vision"]["width"] = 64
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    assert main(join(stock, tmp_path / "x", tower=tmp_path / "other")) == 2
    assert "these parts do not fit together: the tower writes 64 wide" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
