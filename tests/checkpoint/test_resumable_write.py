"""Nothing is lost: interruptions, kills, full disks and wrong targets leave what was there; the same command goes on; shards and hashes."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from wegen.tests.support import byte_tokenizer
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.checkpoint.convert import convert
from wegen.wegen_model.checkpoint.model_folder import CheckpointError
from wegen.wegen_model.checkpoint.report import inspect
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Cancelled, Runtime


@pytest.fixture(scope="module")
def checkpoint(release):
    return release / "checkpoint"


@pytest.fixture(scope="module")
def words(checkpoint):
    """The agent's language model and projectors."""
    agent = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    return {k: v for k, v in agent.items() if not k.startswith("adapter.")}


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Interrupt(Runtime):
    def tick(self, event):
        assert event.kind == "convert" and 0 < event.step <= event.total
        if event.step == 40:
            raise Cancelled


def test_an_interrupted_conversion_leaves_the_target_as_it_was(checkpoint, converted, tmp_path):
    target = tmp_path / "model"
    with pytest.raises(Cancelled):
        convert(checkpoint / "pytorch_model.bin", target, ["unet"], runtime=Interrupt("cpu"))
    assert not list(tmp_path.iterdir())  # no file was finished
    shutil.copytree(converted, target)
    (target / "vision.safetensors").write_bytes(b"older")
    before = contents(target)
    with pytest.raises(Cancelled):
        convert(checkpoint, target, runtime=Interrupt("cpu"))
    assert contents(target) == before and sorted(p.name for p in tmp_path.iterdir()) == [".model.converting", "model"]
    for name in ("model.part", "model.old"):  # somebody's own
        (tmp_path / name).mkdir()
        (tmp_path / name / "letter.txt").write_text("dear")
    convert(checkpoint, target)
    assert contents(target) == contents(converted) and sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.old", "model.part"]
    assert all((tmp_path / name / "letter.txt").is_file() for name in ("model.part", "model.old"))


def test_an_interrupted_conversion_goes_on_behind_its_finished_files(checkpoint, converted, tmp_path, monkeypatch, caplog):
    from wegen.wegen_model.checkpoint import resumable_write

    target, written = tmp_path / "model", []
    with pytest.raises(Cancelled):
        convert(checkpoint, target, runtime=Interrupt("cpu"))
    assert "1 finished files wait in" in caplog.text and not target.exists()
    real = resumable_write.write_file
    monkeypatch.setattr(resumable_write, "write_file", lambda path, *args: written.append(path.name) or real(path, *args))
    report = convert(checkpoint, target)
    assert written[0] == "model.safetensors.part" and "vision.safetensors.part" not in written  # the tower was whole
    assert contents(target) == contents(converted) and [p.name for p in tmp_path.iterdir()] == ["model"]
    assert [p.name for p in report.parts] == ["vision", "language", "projectors", "unet", "vae"]


def test_a_conversion_that_was_killed_goes_on(checkpoint, converted, tmp_path):
    """As by a power cut: no exception is raised, nothing is tidied up."""
    script = (
        "import os, sys\nfrom wegen.wegen_model.runtime import Runtime\nfrom wegen.wegen_model.checkpoint.convert import convert\n"
        "Runtime.tick = lambda self, event: os._exit(9) if event.step == 40 else None\n"
        "convert(sys.argv[1], sys.argv[2], runtime=Runtime('cpu'))"
    )
    target = tmp_path / "model"
    assert subprocess.run([sys.executable, "-c", script, checkpoint, target]).returncode == 9
    left = contents(tmp_path)
    locked = {".model.lock", ".model.lock.who"}  # whose process is dead: they hold nobody up, and go with the next
    assert {p.name for p in left} == {"vision.safetensors", "model.safetensors.part", "progress.json"} | locked
    with pytest.raises(CheckpointError, match="its conversion was interrupted. The same `wegen convert` command goes on"):
        WeGen.load(target)
    convert(checkpoint, target)
    assert contents(target) == contents(converted) and [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("change", ["other work", "damaged file", "changed source"])
def test_what_an_interruption_left_is_not_trusted_blindly(checkpoint, converted, tmp_path, change, monkeypatch):
    from wegen.wegen_model.checkpoint import resumable_write

    source, target, written = shutil.copytree(checkpoint, tmp_path / "source"), tmp_path / "model", []
    with pytest.raises(Cancelled):
        convert(source, target, runtime=Interrupt("cpu"))
    dtype = torch.bfloat16 if change == "other work" else None
    if change == "damaged file":
        path = tmp_path / ".model.converting/files/vision.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif change == "changed source":
        os.utime(source / "EVA-CLIP/visual.pt", (0, 0))
    real = resumable_write.write_file
    monkeypatch.setattr(resumable_write, "write_file", lambda path, *args: written.append(path.name) or real(path, *args))
    convert(source, target, dtype=dtype)
    assert written[0] == "vision.safetensors.part"
    assert dtype or contents(target) == contents(converted)


def test_shards_and_hashes(checkpoint, converted, tmp_path):
    """Small shards: an index as Hugging Face writes it, every file's hash, and the same model."""
    convert(checkpoint, tmp_path / "model", shard=200_000)
    names = [p.name for p in model_folder.files(tmp_path / "model", "vision")]
    assert names == ["vision-00001-of-00002.safetensors", "vision-00002-of-00002.safetensors"]
    for part in ("vision", "language", "projectors", "unet", "vae"):
        wide = load_file(model_folder.files(converted, part)[0])
        shards = {k: v for path in model_folder.files(tmp_path / "model", part) for k, v in load_file(path).items()}
        assert set(wide) == set(shards) and all(torch.equal(wide[k], v) for k, v in shards.items()), part
    assert inspect(tmp_path / "model", verify=True).notes[-1] == "every file is as it was written"
    convert(tmp_path / "model", tmp_path / "again")  # and back into one file a part
    assert contents(tmp_path / "again") == contents(converted)
    broken = tmp_path / "model" / names[1]
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    assert inspect(tmp_path / "model", verify=True).notes[-1] == f"changed since the conversion: {names[1]}"
    broken.unlink()
    with pytest.raises(CheckpointError, match="vision-00002-of-00002.safetensors, which is not there"):
        inspect(tmp_path / "model")


@pytest.mark.parametrize("before", [True, False])
def test_a_full_disk(checkpoint, converted, tmp_path, before):
    """A limit on the length of files stands in for a disk that fills up: the system itself refuses to write on."""
    resource = pytest.importorskip("resource")
    target = tmp_path / "model"
    if before:
        shutil.copytree(converted, target)
    then = contents(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # the tower fits, the language model does not
    try:
        with pytest.raises(CheckpointError, match="could not be written .*What was there before is unchanged.*1 finished files wait in"):
            convert(checkpoint, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    now = contents(tmp_path)
    assert {k: v for k, v in now.items() if ".model.converting" not in k.parts} == then
    assert not any(k.suffix == ".part" for k in now)
    convert(checkpoint, target)
    assert contents(target) == contents(converted) and [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_disk_without_room_is_refused_before_the_work(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(CheckpointError, match=r"GiB are to be written, 0.0 GiB are free.*--part"):
        convert(checkpoint, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_targets_that_would_lose_something(checkpoint, converted, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").write_bytes(b"cat")
    source = tmp_path / "visual.pt"
    shutil.copy(checkpoint / "EVA-CLIP/visual.pt", source)
    with pytest.raises(CheckpointError, match="is not a WeGen model folder: nothing there is overwritten"):
        convert(source, tmp_path / "photos")
    shutil.copytree(converted, tmp_path / "model")
    with pytest.raises(CheckpointError, match="language, projectors, unet, vae would be lost"):
        convert(source, tmp_path / "model")
    with pytest.raises(CheckpointError, match="is a file; name a folder"):
        convert(checkpoint, source)
    for inside in (tmp_path, tmp_path / "model" / "inner"):
        with pytest.raises(CheckpointError, match="outside the source"):
            convert(tmp_path / "model", inside)
    assert (tmp_path / "photos/cat.png").read_bytes() == b"cat" and contents(tmp_path / "model") == contents(converted)


def test_a_tokenizer_that_was_put_there_by_hand_is_not_lost(checkpoint, converted, tmp_path):
    """The public release brings none."""
    target = shutil.copytree(converted, tmp_path / "model")
    (target / "tokenizer.model").write_bytes(b"words")
    with pytest.raises(CheckpointError, match="holds a model whose tokenizer would be lost.*taken from beside the source's weights"):
        convert(checkpoint, target)
    assert (target / "tokenizer.model").read_bytes() == b"words"


def test_a_broken_table_of_tokens_is_named(words, tmp_path):
    torch.save(words, tmp_path / "pytorch_model.bin")
    byte_tokenizer(tmp_path / "fast")
    shutil.copy(tmp_path / "fast/tokenizer.json", tmp_path)
    (tmp_path / "added_tokens.json").write_text("{")
    with pytest.raises(CheckpointError, match="added_tokens.json: not a valid"):
        convert(tmp_path, tmp_path.with_name("out"))
