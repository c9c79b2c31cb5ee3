"""`wegen bench precision` and what Load WeGen Model says of it."""

import json
import shutil

import pytest
import torch
from wegen.tests.nodes.conftest import call
from wegen.wegen_model.checkpoint.convert import convert
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.evaluate import precision


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    return shutil.copytree(tiny, tmp_path_factory.mktemp("models") / "own")


@pytest.fixture(scope="module")
def measured(folder):
    return precision.measure(folder, variants=("q8_0", "q4_0"), count=1)


def test_wider_is_nearer_and_smaller_is_smaller(measured, folder):
    rows = measured["variants"]
    assert 1 > rows["q8_0"]["tower"] > rows["q4_0"]["tower"] > 0.5
    assert rows["q8_0"]["features"] > rows["q4_0"]["features"]  # random weights: errors grow fast
    assert all(-1 <= row["worst"] <= row["features"] for row in rows.values())
    sizes = [row["vision_bytes"] + row["language_bytes"] for row in (measured["reference"], rows["q8_0"], rows["q4_0"])]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    assert json.loads((folder / precision.FILE).read_text()) == measured
    assert [text.count("<image_1>") for text in measured["prompts"]] == [0, 1]


def test_a_stored_folder_is_measured_against_what_it_was_made_from(measured, folder, tmp_path, capsys):
    stored = convert(folder, tmp_path / "q8", quantize="q8_0").path
    assert main(["bench", "precision", str(stored)]) == 2
    assert "so there is nothing to compare with" in capsys.readouterr().err
    assert main(["bench", "precision", str(folder), "--against", str(stored)]) == 2
    assert "are quantized themselves" in capsys.readouterr().err
    prompt = measured["prompts"][0]
    assert main(["bench", "precision", str(stored), "--against", str(folder), "--prompt", prompt]) == 0
    assert "as stored" in capsys.readouterr().out
    row = json.loads((stored / precision.FILE).read_text())["variants"][precision.STORED]
    exact = ("features", "worst", "centred", "tower", "vision_bytes", "language_bytes")
    assert {k: row[k] for k in exact} == {k: measured["variants"]["q8_0"][k] for k in exact} and row["kinds"] == ["Q8_0"]
    assert "as stored (Q8_0): cosine" in precision.verdict(stored)[0]
    assert precision.verdict(stored, "q4_0") == precision.verdict(stored)  # stays as it is stored


def test_unknown_precisions(folder, capsys):
    assert main(["bench", "precision", str(folder), "--only", "int3"]) == 2
    assert "precision 'int3' is not one of bfloat16, float16, q8_0, q4_0, fp8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind, cosine, warned",
    [("q8_0", 0.9951, False), ("q8_0", 0.9949, True), ("fp8", 0.9949, True), ("q4_0", 0.9801, False), ("q4_0", 0.9799, True)],
)
def test_the_loader_shows_it_and_warns(measured, folder, tmp_path, kind, cosine, warned):
    model = shutil.copytree(folder, tmp_path / "model")
    result = json.loads((model / precision.FILE).read_text())
    result["variants"][kind] = {**result["variants"]["q8_0"], "features": cosine}
    (model / precision.FILE).write_text(json.dumps(result))
    (loaded,), lines = call("WeGenLoadModel", model=str(model), dtype=kind)
    text = "".join(lines)
    assert loaded.runtime.blocks == kind.upper() and kind in text and f"{cosine:.4f}" in text
    assert ("Note: " in text and "below the" in text) == warned


def test_the_loader_says_when_nothing_was_measured_on_these_weights(measured, folder, tmp_path):
    assert call("WeGenLoadModel", model=str(folder))[1] == []  # 16 bits: nothing to say
    assert "fp8: not measured on these weights yet" in call("WeGenLoadModel", model=str(folder), dtype="fp8")[1][0]
    model = shutil.copytree(folder, tmp_path / "model")
    content = bytearray((model / "vision.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "vision.safetensors").write_bytes(content)  # other weights
    assert "q8_0: not measured on these weights yet" in call("WeGenLoadModel", model=str(model), dtype="q8_0")[1][0]


def test_a_damaged_file_is_told_where_it_is_read_not_by_the_loader(folder, tmp_path):
    model = shutil.copytree(folder, tmp_path / "model")
    path = model / "vision.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    (loaded,), shown = call("WeGenLoadModel", model=str(model), dtype="q8_0")
    assert shown == []
    with pytest.raises(precision.model_folder.CheckpointError, match="damaged or incomplete safetensors"):
        call("WeGenEncode", model=loaded, image=torch.zeros(1, 8, 8, 3))
