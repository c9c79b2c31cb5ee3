"""`wegen train` as it is typed: a fine-tune from a folder of pictures to a model folder, its messages, and its launch files."""

import contextlib
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.tests.data import layouts
from wegen.tests.support import tiny_model
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.cli.train import CONFIGS, divide
from wegen.wegen_model.pipeline import WeGen


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """tiny/ a model, pictures/ three pictures (one captioned) and a damaged one."""
    place = tmp_path_factory.mktemp("train")
    tiny_model(place / "tiny")
    (place / "pictures").mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(place / "pictures" / f"{i}.png")
    (place / "pictures" / "0.txt").write_text("a fox")
    (place / "pictures" / "broken.png").write_bytes(b"\x89PNG no more")
    return place


def train(place, stage: str, *more: str) -> int:
    return main(
        [
            "train",
            stage,
            "--preset",
            "mini",
            "--model",
            str(place / "tiny"),
            "--data",
            str(place / "pictures"),
            "--cpu",
            "--set",
            "steps=3",
            "--set",
            "warmup=1",
            "--set",
            "batch=2",
            "--set",
            "log_every=1",
            *more,
        ]
    )


@pytest.mark.parametrize(
    "stage, changed, same",
    [
        ("visual-decoding", {"unet"}, {"vision", "language", "projectors", "vae"}),
        ("stage-1", {"language", "projectors"}, {"vision", "unet", "vae"}),
    ],
)
def test_a_fine_tune_from_pictures_to_a_model_folder(place, tmp_path, capsys, caplog, stage, changed, same):
    work = tmp_path / "work"
    for stop in (["--stop-after", "0"], []):
        assert train(place, stage, "--folder", str(work), *stop, "--sample-every", "3") == 0
    whole = tmp_path / "whole"
    assert train(place, stage, "--folder", str(whole)) == 0
    assert "broken.png was skipped" in caplog.text
    states = {}
    for name in ("tiny", work / "model", whole / "model"):
        states[name] = {part: model_folder.read_tensors(model_folder.files(place / name, part)[0]) for part in changed | same}
    for part in changed | same:
        before, parts, one = (states[n][part] for n in states)
        assert before.keys() == parts.keys() and all(torch.equal(parts[k], one[k]) for k in one)  # resumed = uninterrupted
        assert all(torch.equal(before[k], one[k]) for k in one) == (part in same)
    assert len([json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]) == 3
    assert Image.open(work / "samples" / "000003.png").size == (4 * 32, 64)
    model = WeGen.load(whole / "model")  # a model like any other
    assert model.config.features.parallel or stage == "visual-decoding"
    assert main(["inspect", str(whole / "model")]) == 0


def test_a_lora_is_written_and_merged(place, tmp_path):
    assert train(place, "visual-decoding", "--folder", str(tmp_path), "--set", "lora=2") == 0
    assert (tmp_path / "lora.safetensors").is_file()
    checkpoint = torch.load(tmp_path / "checkpoint" / "weights.pt", weights_only=True)
    assert all(key.startswith("layers.") for key in checkpoint["model"])  # the adapter alone


@contextlib.contextmanager
def files_end_after(size: int):
    """As on a full disk: what is longer cannot be written."""
    resource = pytest.importorskip("resource", reason="limits are Unix's")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_the_training_is_kept_and_the_model_is_written_later(place, tmp_path, capsys, caplog):
    with files_end_after(100_000):
        assert train(place, "stage-1", "--folder", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "the checkpoint of step 3 could not be written" in said and "enforce fail" not in said
    assert "There is no earlier checkpoint. Make room, then start again." in said
    assert train(place, "stage-1", "--folder", str(tmp_path), "--set", "lora=2", "--target", str(tmp_path / "out")) == 0
    (tmp_path / "lora.safetensors").unlink()
    capsys.readouterr()
    for size, told in ((100_000, "the trained model could not be written to"), (1000, "the adapter could not be written to")):
        with files_end_after(size):
            assert train(place, "stage-1", "--folder", str(tmp_path), "--set", "lora=2") == 2
        said = capsys.readouterr().err
        assert told in said and "make room" in said and "nothing is trained anew" in said and len(said) < 600
        assert not (tmp_path / "model").exists() and not list(tmp_path.glob(".model*"))
    assert train(place, "stage-1", "--folder", str(tmp_path), "--set", "lora=2") == 0 and (tmp_path / "model").is_dir()
    with files_end_after(10):  # neither the log nor a sheet is worth stopping for; the checkpoint at the end is
        assert train(place, "stage-1", "--folder", str(tmp_path), "--set", "lora=2", "--change", "steps=5", "--sample-every", "4") == 2
    assert "The sample pictures of step 4 could not be written" in caplog.text and "the line of step 4 could not be written" in caplog.text
    assert "The checkpoint of step 3" in capsys.readouterr().err


def test_a_mixture_of_shards_is_trained_on(place, tmp_path, caplog):
    """Each piece is of one source; a damaged sample is left out and named."""
    pytest.importorskip("webdataset", reason="shards are written with webdataset")
    from wegen.wegen_model.data import shards
    from wegen.wegen_model.data.items import Item
    from wegen.wegen_model.data.sample import Sample, Turn

    for name, words in (("foxes", "a fox"), ("cats", "a cat")):
        drawn = np.random.default_rng(len(name)).integers(0, 255, (20, 20, 3), np.uint8)
        samples = [Sample("text-to-picture", (Turn("user", words), Turn("assistant", "", drawn=drawn)), f"{name}-{i}") for i in range(4)]
        shards.write([Item(x.key, lambda x=x: x) for x in samples], tmp_path / name, name)
    tar = next((tmp_path / "cats").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[600:700] = bytes(100)
    tar.write_bytes(bytes(data))
    (tmp_path / "mixture.json").write_text(json.dumps({"sources": [{"shards": "foxes", "weight": 1}, {"shards": "cats", "weight": 2}]}))
    assert train(place, "stage-1", "--folder", str(tmp_path / "work"), "--data", str(tmp_path / "mixture.json"), "--micro", "1") == 0
    assert re.search(r"cats.shard-000000.tar, sample cats-0 was skipped \(the shard is corrupt", caplog.text), caplog.text
    assert train(place, "stage-1", "--folder", str(tmp_path / "w2"), "--data", str(tmp_path / "foxes")) == 0


@pytest.mark.parametrize(
    "more, error",
    [
        (["--set", "steps"], "--set steps: write NAME=VALUE"),
        (["--set", "steps=none"], "steps is a whole number"),
        (["--preset", "papper"], "preset 'papper': choose paper, release, mini"),
        (["--data", "nowhere"], "nowhere: there is no such folder"),
        (["--micro", "3"], "a batch of 2 cannot be divided evenly among 1 process that take 3 at once. Choose --set batch=3"),
        (["--model", "nowhere"], "no model folder 'nowhere'"),
        (["--micro", "-2"], "--micro is -2: it cannot be negative"),
        (["--sample-every", "-1"], "--sample-every is -1: it cannot be negative"),
        (["--set", "precision=fp16"], "precision fp16 is for GPUs: choose bf16 or no"),
        (["--set", "size=80000"], "a multiple of 8 pixels, at most 8192"),
    ],
)
def test_nonsense_is_answered_before_the_work(place, tmp_path, capsys, more, error):
    assert train(place, "stage-1", "--folder", str(tmp_path / "work"), *more) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "work" / "checkpoint").exists()


def test_folders_without_pictures_and_targets_that_would_be_lost(place, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    assert train(place, "stage-1", "--data", str(tmp_path)) == 2
    assert "no picture that can be read" in capsys.readouterr().err
    assert train(place, "stage-1", "--folder", str(tmp_path / "w"), "--target", str(place / "tiny")) == 2
    assert "never touched" in capsys.readouterr().err
    only = tiny_model(tmp_path / "eyes", parts=("vision", "language", "projectors"))
    assert train(place, "visual-decoding", "--model", str(only)) == 2
    assert "this folder has no decoder to train" in capsys.readouterr().err


def test_data_of_another_kind_is_told(place, tmp_path, capsys, caplog):
    def said(data) -> str:
        assert train(place, "stage-1", "--folder", str(tmp_path / "work"), "--data", str(tmp_path / data)) == 2
        return capsys.readouterr().err

    for name in ("many/foxes", "emptied"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "shards.json").write_text('{"shards": {"shard-000000.tar": 4}}')
    layouts.laion_coco(tmp_path / "raw")
    assert "it holds folders of shards (foxes). Name one of them, or a mixture file" in said("many")
    assert "shard-000000.tar: its index shard-000000.index.json is missing. Delete what is damaged there" in said("emptied")
    for path in sorted((tmp_path / "raw").rglob("*.tar")):
        path.rename(tmp_path / "raw" / path.name)
    assert "It looks like laion-coco or capsfusion or grit: `wegen data shards laion-coco" in said("raw")
    layouts.hr_viton(tmp_path / "dataset")
    assert train(place, "stage-1", "--folder", str(tmp_path / "work"), "--data", str(tmp_path / "dataset")) == 0
    assert "looks like hr-viton. Only its pictures are taken" in caplog.text


def test_batches_are_divided_evenly_or_not_at_all():
    assert [divide(2048, 8, 128), divide(4096, 8, 128), divide(8, 0, 1), divide(8, 0, 2)] == [2, 4, 1, 1]
    with pytest.raises(ValueError, match="among 2 processes that take 3 at once. Choose --set batch=6"):
        divide(8, 3, 2)


def test_presets_costs_and_configurations_are_printed(capsys):
    assert main(["train", "presets"]) == 0 and "visual-decoding" in capsys.readouterr().out
    assert main(["train", "configs"]) == 0
    listed = capsys.readouterr().out
    assert all(path.stem in listed for path in CONFIGS.glob("*.yaml"))
    assert main(["train", "configs", "zero9"]) == 2 and "no launch configuration 'zero9'" in capsys.readouterr().err
    assert main(["train", "estimate", "visual-decoding", "--preset", "mini", "--model", "wegen-mini", "--devices", "1", "--peak", "1"]) == 0
    assert "device hours" in capsys.readouterr().out


def test_every_launch_configuration_is_understood_by_accelerate():
    config = pytest.importorskip("accelerate.commands.config.config_args", reason="accelerate trains")
    for path in CONFIGS.glob("*.yaml"):
        text = path.read_text()
        read = config.load_config_from_file(str(path))
        assert read.num_processes == {"one": 1, "cpu_ddp": 2, "cpu_fsdp2": 2, "ddp": 8, "fsdp2": 128, "zero2": 128}[path.stem]
        ran = path.stem in ("one", "cpu_ddp", "cpu_fsdp2")
        assert ("Run in the tests" in text) == ran and ("never run here" in text) != ran  # each says which it is
        if read.fsdp_config:
            from accelerate.utils import FullyShardedDataParallelPlugin

            values = {k.removeprefix("fsdp_"): v for k, v in read.fsdp_config.items()}
            plugin = FullyShardedDataParallelPlugin(
                fsdp_version=values["version"],
                auto_wrap_policy=values["auto_wrap_policy"].lower(),
                reshard_after_forward=values["reshard_after_forward"],
            )
            assert plugin.fsdp_version == 2
