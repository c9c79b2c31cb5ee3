"""A run knows itself: what it was made with is kept in its checkpoints, and going on with other things is refused by name, or asked for."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.tests.cli.test_train import train
from wegen.tests.support import tiny_model
from wegen.tests.train.test_checkpoint import Toy, run
from wegen.wegen_model import locks
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.data.image_folder import PictureFolder
from wegen.wegen_model.mini.dataset import open_dataset
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.checkpoint import step_of
from wegen.wegen_model.train.finetune import identity, lora_settings
from wegen.wegen_model.train.run_record import model_identity

CPU = Runtime("cpu")


def pictures(folder, count: int, first: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(first, first + count):
        noise = np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("a fox")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """tiny/ and other/ models; pictures/ and more/; begun/ a run of stage-1 that stopped after its first step, with averages."""
    place = tmp_path_factory.mktemp("record")
    tiny_model(place / "tiny")
    tiny_model(place / "other", seed=1)
    pictures(place / "pictures", 3)
    pictures(place / "more", 3, first=10)
    assert train(place, "stage-1", "--folder", str(place / "begun"), "--set", "ema=0.9", "--micro", "1", "--stop-after", "0") == 0
    return place


@pytest.fixture
def begun(place, tmp_path):
    return shutil.copytree(place / "begun", tmp_path / "run")


def go_on(place, folder, *more: str) -> int:
    return train(place, "stage-1", "--folder", str(folder), "--set", "ema=0.9", "--micro", "1", *more)


def kept(folder) -> dict:
    return json.loads((folder / "checkpoint" / "run.json").read_text())


def test_a_second_training_in_one_folder_is_refused(place, begun, capsys):
    before = kept(begun)
    with locks.held(begun / ".lock", "train stage-1"):
        assert go_on(place, begun) != 0
    assert re.search(r"run: process \d+ on .* is at work there \(train stage-1\).*another folder", capsys.readouterr().err)
    assert kept(begun) == before
    assert go_on(place, begun, "--stop-after", "0") == 0, "and goes on when the other is done"


def test_a_checkpoint_says_what_it_was_made_with(place):
    record = kept(place / "begun")
    assert record["stage"] == "stage-1" and record["micro_batches"] == 2 and record["changes"] == []
    assert record["settings"]["ema"] == 0.9 and record["settings"]["steps"] == 3 and "condition_dropout" not in record["settings"]
    assert "3 pictures" in record["data"]["what"] and len(record["data"]["hash"]) == len(record["model"]["hash"]) == 16
    assert record["versions"]["torch"] == torch.__version__ and record["command"]


@pytest.mark.parametrize(
    "more, told",
    [
        (["--set", "learning_rate=1e-3"], "learning_rate was 0.0003, and is 0.001"),
        (["--set", "eps=1e-6"], "eps was 1e-08, and is 1e-06"),
        (["--set", "betas=0.8,0.99"], "betas was 0.9,0.95, and is 0.8,0.99"),
        (["--set", "weight_decay=0.3"], "weight_decay was 0.01, and is 0.3"),
        (["--set", "seed=7"], "seed was 42, and is 7"),
        (["--set", "batch=4", "--micro", "2"], "batch was 2, and is 4"),
        (["--micro", "2"], "micro was 2 micro-batches a step, and is 1 micro-batches a step"),
        (["--set", "ema=0"], "ema was 0.9, and is 0"),
        (["--data", "{place}/more"], "data was .*pictures, 3 pictures.*, and is .*more, 3 pictures"),
        (["--model", "{place}/other"], "model was .*tiny .*, and is .*other"),
        (["--set", "lora=2"], "lora was 0, and is 2"),
        (["--set", "projector_lr_scale=0.1"], "projector_lr_scale was 1, and is 0.1"),
        (["--set", "log_every=3"], "log_every was 1, and is 3"),
    ],
)
def test_going_on_with_other_things_is_refused_by_name(place, begun, capsys, more, told):
    before = (begun / "checkpoint" / "weights.pt").read_bytes()
    assert go_on(place, begun, *(word.format(place=place) for word in more)) == 2
    said = capsys.readouterr().err
    assert re.search(told, said) and "goes on from step 1, and began with other things" in said, said
    assert ("cannot change on the way" in said) == ("lora" in told or "model" in told or "projector" in told) != ("--change" in said)
    assert (begun / "checkpoint" / "weights.pt").read_bytes() == before and step_of(begun / "checkpoint") == 1


def test_each_change_is_done_logged_and_kept(place, begun, caplog):
    more = ["learning_rate=1e-3", "weight_decay=0.3", "betas=0.8,0.99", "eps=1e-6", "steps=5", f"data={place / 'more'}", "micro=2"]
    assert go_on(place, begun, *(word for change in more for word in ("--change", change))) == 0
    assert "from step 1 on, learning_rate is 0.001; it was 0.0003" in caplog.text
    assert "micro is 1 micro-batches a step; it was 2 micro-batches a step" in caplog.text
    record = kept(begun)
    names = {"learning_rate", "weight_decay", "betas", "eps", "steps", "data", "micro"}
    assert {c["name"] for c in record["changes"]} == names and {c["step"] for c in record["changes"]} == {1}
    group = torch.load(begun / "checkpoint" / "weights.pt", weights_only=True)["optimiser"]["param_groups"][0]
    assert (group["weight_decay"], tuple(group["betas"]), group["eps"]) == (0.3, (0.8, 0.99), 1e-6)  # the optimiser has them too
    assert step_of(begun / "checkpoint") == 5
    rows = [json.loads(line) for line in (begun / "log.jsonl").read_text().splitlines()]
    assert rows[1]["learning_rate"] == pytest.approx(1e-3, rel=0.05)
    # the same command again changes nothing more; the first one is not the run's any longer
    assert (
        go_on(place, begun, *(word for change in more for word in ("--change", change))) == 0
        and kept(begun)["changes"] == record["changes"]
    )
    assert go_on(place, begun) == 2


def test_a_run_whose_averages_are_given_up_exports_what_it_learned(place, begun, caplog):
    """Before, `ema=0` exported the averages of the step where it stopped: the training after it was lost."""
    assert go_on(place, begun, "--change", "ema=0") == 0
    assert "the averaged weights are given up" in caplog.text
    saved = torch.load(begun / "checkpoint" / "weights.pt", weights_only=True)
    made = model_folder.read_tensors(model_folder.files(begun / "model", "projectors")[0])
    assert saved["ema"] == {} and all(torch.equal(value, saved["model"][f"projectors.{key}"]) for key, value in made.items())


def test_averages_that_begin_on_the_way_follow_the_weights(tmp_path):
    """The same of the loop itself, which the node uses: a checkpoint's betas, eps, decay and averages are never taken in silence."""
    toy = Toy(steps=6)
    run(toy, tmp_path, CPU, alone=True, stop_after=0.0)

    def other(**changes):
        task = Toy(steps=6)
        task.settings = dataclasses.replace(task.settings, **changes)
        return task

    for name, value, told in (
        ("betas", (0.5, 0.9), r"betas was \(0.9, 0.95\), and is \(0.5, 0.9\).*--change betas=0.5,0.9"),
        ("eps", 1e-3, "eps was 1e-08, and is 0.001"),
        ("weight_decay", 0.5, "weight_decay was 0.0, and is 0.5"),
        ("ema", 0.0, "ema was on, and is 0.0"),
    ):
        with pytest.raises(ValueError, match=f"began with other settings: {told}"):
            run(other(**{name: value}), tmp_path, CPU, alone=True)
    assert step_of(tmp_path / "checkpoint") == 1


def test_a_folder_of_before_goes_on_and_says_what_could_not_be_compared(place, begun, tmp_path, caplog):
    (begun / "checkpoint" / "run.json").unlink()
    assert go_on(place, begun) == 0
    assert "kept no record of a run: whether settings, data and model are those that it began with could not be compared" in caplog.text
    assert go_on(place, tmp_path / "whole") == 0
    a, b = (torch.load(f / "checkpoint" / "weights.pt", weights_only=True) for f in (begun, tmp_path / "whole"))
    assert all(torch.equal(a["ema"][k], b["ema"][k]) for k in b["ema"]) and kept(begun)["settings"] == kept(tmp_path / "whole")["settings"]


def test_a_folder_of_before_is_still_asked_what_its_optimiser_knows(place, begun, capsys):
    (begun / "checkpoint" / "run.json").unlink()
    assert go_on(place, begun, "--set", "weight_decay=0.3") == 2
    assert "weight_decay was 0.01, and is 0.3" in capsys.readouterr().err
    assert go_on(place, begun, "--change", "weight_decay=0.3") == 0


def test_a_damaged_record_is_told(place, begun, capsys):
    (begun / "checkpoint" / "run.json").write_text('{"stage": "stage-1", "sett')
    assert go_on(place, begun) == 2
    assert "run.json is damaged" in capsys.readouterr().err
    (begun / "checkpoint" / "run.json").unlink()
    assert go_on(place, begun) == 0


@pytest.mark.parametrize(
    "change, told",
    [
        ("lora=4", "--change lora: the weights of a run hang on it, so it stays. Begin anew in another --folder"),
        ("model=x", "--change model: the weights of a run hang on it"),
        ("micro=two", "--change micro=two: micro is a whole number"),
        ("steps", "--change steps: write NAME=VALUE"),
        ("condition_dropout=0", "stage-1 does not read it"),
    ],
)
def test_changes_that_cannot_be(place, begun, capsys, change, told):
    assert go_on(place, begun, "--change", change) == 2
    assert told in capsys.readouterr().err


def test_other_versions_are_logged(place, begun, caplog):
    record = kept(begun)
    record["versions"]["torch"] = "2.4.0"
    (begun / "checkpoint" / "run.json").write_text(json.dumps(record))
    assert go_on(place, begun) == 0
    assert f"torch was 2.4.0 and is {torch.__version__}" in caplog.text


def test_identities_tell_what_changed(place, tmp_path):
    folder = shutil.copytree(place / "pictures", tmp_path / "moved")
    same, moved = PictureFolder(place / "pictures").identity(), PictureFolder(folder).identity()
    assert same["hash"] == moved["hash"]
    data = bytearray((folder / "1.png").read_bytes())
    data[-40] ^= 1  # as long as before
    (folder / "1.png").write_bytes(data)
    assert (other := PictureFolder(folder).identity())["hash"] != same["hash"]
    (folder / "0.txt").write_text("a wolf!")
    assert PictureFolder(folder).identity()["hash"] not in (same["hash"], other["hash"])
    assert model_identity(place / "tiny")["hash"] != model_identity(place / "other")["hash"]
    one = open_dataset("mini:talks,samples=20", 0, "wegen-mini", art={}).identity()
    assert one == open_dataset("mini:talks,samples=20", 0, "wegen-mini", art={}).identity()
    others = [open_dataset(f"mini:{x}", 0, "wegen-mini", art={}).identity() for x in ("talks,samples=21", "talks,samples=20,seed=1")]
    assert len({one["hash"], *(x["hash"] for x in others)}) == 3 and "samples=20" in one["what"]


def test_runs_of_the_node_are_known_by_the_name_that_they_had():
    """WeGen Train Decoder finds a run that was begun before a setting was added; a setting that is asked for is another run."""
    s = lora_settings(100, 1e-4, 8, 2, 5, 64, torch.device("cpu"))
    assert identity(Path("nowhere"), [], s) == "30645b30"
    assert identity(Path("nowhere"), [], dataclasses.replace(s, lora_alpha=4.0)) != "30645b30"
