"""A model folder whose weights are quantized: what is trained must not be, what is frozen and carries an adapter may."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.tests.cli.test_train import train
from wegen.wegen_model.chat.conversation import Conversation
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.checkpoint.convert import convert
from wegen.wegen_model.models.llama import Language
from wegen.wegen_model.models.lora import Adapters, read_lora
from wegen.wegen_model.models.quantization import QuantizedLinear
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.train.modules import load


@pytest.fixture(scope="module")
def place(tiny, tmp_path_factory):
    """tiny/: blocks of 8 bits; pictures/: three captioned ones. Not to be written to."""
    place = tmp_path_factory.mktemp("blocks")
    convert(shutil.copytree(tiny, place / "wide"), place / "tiny", quantize="q8_0")
    (place / "pictures").mkdir()
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)).save(place / "pictures" / f"{i}.png")
        (place / "pictures" / f"{i}.txt").write_text("a fox")
    return place


@pytest.mark.parametrize("stage", ["stage-1", "stage-2"])
def test_full_fine_tuning_of_blocks_is_refused_before_the_work(place, tmp_path, capsys, stage):
    assert train(place, stage, "--folder", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "the weights of its language model are quantized (Q8_0), and such weights cannot be trained" in said
    assert "16-bit weights that it was made from, or train an adapter on top of them: --set lora=16" in said
    assert not (tmp_path / "checkpoint").exists()


def adapted(language: Language, tensors: dict) -> Language:
    """With an adapter file as hooks, as it was trained."""
    adapters = Adapters("language", language, 2)
    for key, layer in adapters.layers.items():
        layer.down.data = tensors[f"lora_te_{key}.lora_down.weight"]
        layer.up.data = tensors[f"lora_te_{key}.lora_up.weight"]
    return language


@pytest.mark.parametrize("recompute", ["yes", "no"])
def test_an_adapter_is_trained_on_blocks_and_merged_into_values(place, tmp_path, recompute):
    assert (
        train(
            place,
            "stage-1",
            "--folder",
            str(tmp_path),
            "--set",
            "lora=2",
            "--set",
            f"checkpointing={recompute}",
            "--set",
            "learning_rate=0.01",
        )
        == 0
    )
    blocks = load(place / "tiny", "stage-1", lora=True).writer.language
    assert sum(isinstance(m, QuantizedLinear) for m in blocks.modules()) == 7 * len(blocks.model.layers)
    made = tmp_path / "model"
    assert not [kind for path in model_folder.files(made, "language") for kind in model_folder.stored_kinds(path)]
    assert [kind for path in model_folder.files(made, "vision") for kind in model_folder.stored_kinds(path)]  # copied as it was
    merged = load(made, "stage-1", lora=True).writer.language
    x = torch.randn(1, 12, merged.config.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = blocks(x), merged(x)
        trained = adapted(blocks, read_lora(tmp_path / "lora.safetensors"))(x)
    assert torch.allclose(trained, after, atol=1e-4) and not torch.allclose(before, after, atol=1e-2)
    talk = WeGen.load(made).chat(Conversation().user("a fox"), picture="never", max_tokens=2)  # a model like any other
    assert [turn.role for turn in talk.turns] == ["user", "assistant"]


def test_a_decoder_is_trained_through_a_tower_in_blocks(place, tmp_path, caplog):
    assert train(place, "visual-decoding", "--folder", str(tmp_path)) == 0
    assert "its tower is quantized (Q8_0). What is trained fits the features that this tower makes" in caplog.text
    old, new = (model_folder.read_tensors(model_folder.files(f, "unet")[0]) for f in (place / "tiny", tmp_path / "model"))
    assert any(not torch.equal(old[k], new[k]) for k in old)
    for part in ("vision", "language"):
        assert model_folder.files(place / "tiny", part)[0].read_bytes() == model_folder.files(tmp_path / "model", part)[0].read_bytes()
