"""Two processes at one folder: each gets names of its own, or is refused in words that say who is there."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from wegen.wegen_model import fileio, locks
from wegen.wegen_model.workflow import standins
from wegen.wegen_model.workflow.spec import Folders

SPAWN = multiprocessing.get_context("spawn")
HOLD = "import sys, time; from pathlib import Path; from wegen.wegen_model import locks\nwith locks.held(Path(sys.argv[1]), 'train'):\n"
HOLD += "    print('held', flush=True)\n    time.sleep(60)"


def _holder(path):
    """Another process that holds a lock, and is holding it when this returns."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline().strip() == "held"
    return process


def _write(folder, k):
    for _ in range(20):
        fileio.write_new((Path(folder) / f"x_{n:03}.txt" for n in range(1, 1000)), lambda part: part.write_text(str(k)))


def test_names_are_claimed_by_one_process_each(tmp_path):
    workers = [SPAWN.Process(target=_write, args=(str(tmp_path), k)) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    found = sorted(tmp_path.iterdir())
    assert [p.name for p in found] == [f"x_{n:03}.txt" for n in range(1, 61)], "none lost, none left over"
    assert sorted(p.read_text() for p in found) == ["0"] * 20 + ["1"] * 20 + ["2"] * 20


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_was_taken_meanwhile_is_left_alone(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
    (tmp_path / "a_1").write_text("theirs")
    path = fileio.write_new((tmp_path / f"a_{n}" for n in (1, 2)), lambda part: part.write_text("ours"))
    assert path.name == "a_2" and (tmp_path / "a_1").read_text() == "theirs" and path.read_text() == "ours"
    assert len(list(tmp_path.iterdir())) == 2


def test_two_runs_that_counted_at_once_save_both_pictures(tmp_path, monkeypatch):
    """What lost a picture: both had counted before either wrote."""
    monkeypatch.setattr(standins, "next_counter", lambda folder, name: 1)
    made = [
        standins.SaveImage().save_images(torch.full((2, 4, 4, 3), value), folders=Folders(output=tmp_path))["ui"]["images"]
        for value in (0.0, 1.0)
    ]
    names = [entry["filename"] for run in made for entry in run]
    assert names == [f"ComfyUI_{n:05}_.png" for n in (1, 2, 3, 4)]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_the_second_is_told_who_is_there(tmp_path):
    path = tmp_path / "work" / ".lock"
    other = _holder(path)
    try:
        with pytest.raises(locks.Busy, match=rf"work: process {other.pid} on .* is at work there \(train\) since \d{{4}}-.*another folder"):
            with locks.held(path, "train"):
                raise AssertionError("two at once")
    finally:
        other.kill()
        other.wait()
    with locks.held(path, "train"):  # a dead process holds nothing
        assert json.loads(path.with_name(".lock.who").read_text())["pid"] == os.getpid()
    assert not list(path.parent.iterdir())


def test_processes_under_another_ones_lock_take_none(tmp_path):
    with locks.held(tmp_path / ".lock", "train"), locks.held(tmp_path / ".lock", "train", wanted=False):
        pass
    with locks.held(tmp_path / ".lock", "train"), pytest.raises(locks.Busy):
        with locks.held(tmp_path / ".lock", "train"):
            pass


def test_a_second_conversion_to_one_target_is_refused_and_changes_nothing(tiny, tmp_path):
    from wegen.wegen_model.checkpoint.convert import convert
    from wegen.wegen_model.checkpoint.resumable_write import verify

    target = tmp_path / "model"
    other = _holder(tmp_path / ".model.lock")
    try:
        with pytest.raises(locks.Busy, match=f"process {other.pid}"):
            convert(tiny, target)
        assert not target.exists() and not (tmp_path / ".model.converting").exists()
    finally:
        other.kill()
        other.wait()
    convert(tiny, target)
    assert verify(target) == [] and not list(target.rglob("*.part"))


def _convert(source, target):
    from wegen.wegen_model.checkpoint.convert import convert

    try:
        convert(source, target)
    except locks.Busy:
        sys.exit(7)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills with a signal that this system lacks")
def test_kills_of_two_conversions_at_once_leave_a_whole_model(tiny, tmp_path):
    from wegen.wegen_model.checkpoint.convert import convert
    from wegen.wegen_model.checkpoint.resumable_write import verify

    for k in range(10):  # two are killed each time: twenty kills
        pair = [SPAWN.Process(target=_convert, args=(str(tiny), str(tmp_path / "model"))) for _ in range(2)]
        for process in pair:
            process.start()
        time.sleep(0.4 * k)
        for process in pair:
            process.kill()
        for process in pair:
            process.join()
        if (tmp_path / "model").exists():
            assert verify(tmp_path / "model") == []
    convert(tiny, tmp_path / "model")
    assert verify(tmp_path / "model") == [] and not list((tmp_path / "model").rglob("*.part"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_half_a_folder_of_a_dead_process_is_removed_after_a_day(tmp_path):
    from wegen.wegen_model.checkpoint.model_paths import replacing

    old, young, holds = (tmp_path / f".m.{name}" for name in ("old", "young", "holds"))
    for left in (old, young, holds):
        (left / "new").mkdir(parents=True)
        (left / "new/x").write_text("x")
    (holds / "old").mkdir()
    then = time.time() - 2 * fileio.OLD
    for left in (old, holds):
        for path in (left / "new/x", left / "new"):
            os.utime(path, (then, then))
    with replacing(tmp_path / "m") as new:
        (new / "a").write_text("a")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".m.holds", ".m.young", "m"], "what may hold a model, or is being written, stays"
