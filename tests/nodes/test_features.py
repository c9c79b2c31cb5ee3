"""The nodes that treat features as material, and the file picker."""

import os

import pytest
import torch
from wegen.nodes import NODE_CLASS_MAPPINGS, feature_files
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture
from wegen.wegen_model import workflow as graph
from wegen.wegen_model.features import load_features, save_features


@pytest.fixture(scope="module")
def two(model):
    return call("WeGenEncode", model=model, image=picture(batch=2))[0][0]


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Input and output folder, as ComfyUI gives them."""
    monkeypatch.setattr(feature_files.host, "person_folders", lambda: {name: tmp_path / name for name in ("input", "output")})
    (tmp_path / "input").mkdir()
    (tmp_path / "output").mkdir()
    return tmp_path


def load(**inputs):
    return call("WeGenLoadFeatures", **inputs)[0][0]


def test_mixed_features_are_painted(model, two):
    mixed = call("WeGenMixFeatures", a=two[:1], b=two[1:], amount=0.5, method="spherical", mask=torch.ones(1, 64, 64))[0][0]
    assert mixed.space == two.space and not torch.equal(mixed.tokens, two[:1].tokens)
    assert call("WeGenDecode", features=mixed, decoder=model)[0][0].shape[0] == 1
    back = call("WeGenFeatureArithmetic", a=mixed, b=two[1:], c=two[1:])[0][0]
    assert torch.equal(back.tokens, mixed.tokens)


def test_a_black_mask_is_told(two):
    (mixed,), said = call("WeGenMixFeatures", a=two[:1], b=two[1:], mask=torch.zeros(1, 64, 64))
    assert torch.equal(mixed.tokens, two[:1].tokens) and "mask is all black" in said[0]


def test_the_preview_says_what_it_shows(two):
    (shown,), said = call("WeGenPreviewFeatures", features=two, size=64)
    assert shown.shape == (2, 64, 64, 3) and "2 x 8x8 features" in said[0] and two.space in said[0]


def test_saved_features_come_back_bit_for_bit(disk, two):
    call("WeGenSaveFeatures", features=two, filename_prefix="wegen/mine")
    call("WeGenSaveFeatures", features=two[:1], filename_prefix="wegen/mine")
    cls = NODE_CLASS_MAPPINGS["WeGenLoadFeatures"]
    assert cls.INPUT_TYPES()["required"]["file"][0] == [f"wegen/mine_0000{k}_.safetensors [output]" for k in (1, 2)]
    assert cls.VALIDATE_INPUTS("wegen/mine_00001_.safetensors [output]") is True
    again = load(file="wegen/mine_00001_.safetensors [output]")
    assert torch.equal(again.tokens, two.tokens) and (again.space, again.tower, again.grid) == (two.space, two.tower, two.grid)


def test_only_features_are_listed(disk, two):
    from safetensors.torch import save_file

    save_file({"tokens": torch.zeros(1)}, disk / "input" / "lora.safetensors")
    (disk / "input" / "notes.safetensors").write_text("no header")
    (disk / "input" / "empty.safetensors").touch()
    save_features(two, disk / "input" / "sub" / "mine.safetensors")
    assert feature_files.list_features(feature_files.folders_of()) == ["sub/mine.safetensors"]
    for name in ("lora", "notes", "empty"):
        assert "holds no WeGen features" in NODE_CLASS_MAPPINGS["WeGenLoadFeatures"].VALIDATE_INPUTS(f"{name}.safetensors")


def test_a_picker_is_validated_again(disk, two):
    check = NODE_CLASS_MAPPINGS["WeGenLoadFeatures"].VALIDATE_INPUTS
    save_features(two, disk / "secret.safetensors")
    assert "there is no features file «gone.safetensors»" in check("gone.safetensors")
    assert "leads out of the input folder" in check("../secret.safetensors")
    assert "leads out of the output folder" in check("../secret.safetensors [output]")
    assert check(None) is True
    with pytest.raises(ValueError, match="there is no features file"):
        load(file="gone.safetensors")


def test_one_bad_file_costs_itself(disk, two):
    folder = disk / "input"
    save_features(two, folder / "a.safetensors")
    text = b'{"a":' + b"[" * 200_000
    (folder / "deep.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    (folder / "folder.safetensors").mkdir()
    assert feature_files.list_features(feature_files.folders_of()) == ["a.safetensors"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(disk):
    os.mkfifo(disk / "input/a.safetensors")
    assert feature_files.list_features(feature_files.folders_of()) == []


def test_links_are_followed_but_not_for_ever_and_what_is_listed_opens(disk, two):
    try:
        for name in ("a", "b"):
            (disk / "input" / name).symlink_to(".")  # two: 2**40 ways before the system gives up
        (disk / "far").mkdir()
        (disk / "input/far").symlink_to(disk / "far")
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    save_features(two, disk / "far/x.safetensors")
    folders = feature_files.folders_of()
    assert feature_files.list_features(folders) == ["far/x.safetensors"]
    assert feature_files.find_features("far/x.safetensors", folders).is_file()


@pytest.mark.parametrize("name", ["../far/x.safetensors", "a\0b", "a" * 5000, "C:x.safetensors", "CON.safetensors"])
def test_names_that_lead_out_are_refused_in_words(disk, name):
    with pytest.raises(ValueError, match="leads out of the input folder"):
        feature_files.find_features(name, feature_files.folders_of())


def test_two_saves_that_counted_at_once_are_both_kept(disk, two, monkeypatch):
    from wegen.wegen_model.workflow import standins

    monkeypatch.setattr(standins, "next_counter", lambda folder, name: 1)
    for row in (two[:1], two[1:]):
        call("WeGenSaveFeatures", features=row)
    saved = sorted((disk / "output/wegen").iterdir())
    assert [p.name for p in saved] == ["features_00001_.safetensors", "features_00002_.safetensors"]
    assert torch.equal(load_features(saved[1]).tokens, two[1:].tokens)


def test_a_changed_file_runs_again(disk, two):
    path = disk / "input" / "mine.safetensors"
    changed = NODE_CLASS_MAPPINGS["WeGenLoadFeatures"].IS_CHANGED
    save_features(two, path)
    first = changed("mine.safetensors")
    assert changed("mine.safetensors") == first and len(first) == 64
    save_features(two[:1], path)
    assert changed("mine.safetensors") not in (first, changed("gone.safetensors"))


def test_nan_is_neither_saved_nor_loaded(disk, two):
    import dataclasses

    broken = dataclasses.replace(two, tokens=two.tokens.clone().index_fill_(1, torch.tensor([3]), float("nan")))
    with pytest.raises(ValueError, match="features: .* NaN"):
        call("WeGenSaveFeatures", features=broken)
    assert not list((disk / "output").rglob("*.safetensors"))
    save_features(broken, disk / "input" / "broken.safetensors")
    with pytest.raises(ValueError, match="broken.safetensors: .* NaN"):
        load(file="broken.safetensors")


def test_a_name_cannot_leave_the_output_folder(disk, two):
    with pytest.raises(ValueError, match="leads out of the output folder"):
        call("WeGenSaveFeatures", features=two, filename_prefix="../mine")


def test_wegen_run_binds_the_folders(tmp_path, two):
    """A graph that loads features from --input and saves them below --out."""
    save_features(two, tmp_path / "in" / "mine.safetensors")
    prompt = {
        "1": {"class_type": "WeGenLoadFeatures", "inputs": {"file": "mine.safetensors"}},
        "2": {"class_type": "WeGenSaveFeatures", "inputs": {"features": ["1", 0], "filename_prefix": "a/%width%"}},
    }
    workflow = graph.load_workflow(prompt, NODE_CLASS_MAPPINGS)
    (saved,) = graph.run(workflow, NODE_CLASS_MAPPINGS, out_dir=tmp_path / "out", input_dir=tmp_path / "in")
    assert saved.kind == "file" and saved.path == tmp_path / "out" / "a" / "8_00001_.safetensors"
    assert torch.equal(load_features(saved.path).tokens, two.tokens)


def test_example_pictures():
    cls = NODE_CLASS_MAPPINGS["WeGenExamplePicture"]
    names = cls.INPUT_TYPES()["required"]["picture"][0]
    assert len(names) > 10
    for name in names:
        image, mask = call("WeGenExamplePicture", picture=name)[0]
        assert image.shape == (1, 128, 128, 3) and cls.VALIDATE_INPUTS(name) is True and len(cls.IS_CHANGED(name)) == 64
    assert "there is no example picture '../panda'" in cls.VALIDATE_INPUTS("../panda")
    with pytest.raises(ValueError, match="Choose one of: .*panda"):
        call("WeGenExamplePicture", picture="nobody")
