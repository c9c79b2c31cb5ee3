"""Readers of Table 1's datasets, on hand-made samples in the layouts in which they are distributed."""

import json

import numpy as np
import pytest
from wegen.tests.data.layouts import LAYOUTS, laion_coco
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.data.degrade import DAMAGES
from wegen.wegen_model.data.items import Skips, every
from wegen.wegen_model.data.mixture import Mixture
from wegen.wegen_model.data.readers import READERS, guesses, items
from wegen.wegen_model.data.sample import TASKS, plan
from wegen.wegen_model.data.tasks import restate

OURS = ("diic", "laion-coco-recaption")  # read what the builders write: test_diic.py
TARS = ("laion-coco", "capsfusion", "grit")


def read(name, folder, task=""):
    if name == "magicbrush":
        pytest.importorskip("pyarrow", reason="MagicBrush comes as parquet; pip install pyarrow")
    skips = Skips()
    return list(every(items(name, LAYOUTS[name](folder), task, skips), name, skips)), skips


def mean(picture):
    return round(float(picture[16:, 16:].mean()))


def test_the_table_is_table_1():
    served = {(name, task) for name, reader in READERS.items() for task in reader.tasks}
    assert served == {
        ("laion-coco", "reconstruction"),
        ("object365", "reconstruction"),
        ("openimages", "reconstruction"),
        ("laion-coco-recaption", "text-to-picture"),
        ("capsfusion", "text-to-picture"),
        ("journeydb", "text-to-picture"),
        ("grit", "subject"),
        ("diic", "subject"),
        ("laion-coco", "restoration"),
        ("multigen-20m", "restoration"),
        ("seed-edit", "editing"),
        ("magicbrush", "editing"),
        ("multigen-20m", "condition"),
        ("hr-viton", "condition"),
        ("stylebooth", "style"),
        ("multigen-20m", "style"),
        ("laion-coco-recaption", "understanding"),
        ("llava-150k", "understanding"),
        ("llavar", "understanding"),
        ("scienceqa", "understanding"),
    }
    assert {task for _, task in served} == set(TASKS)
    assert set(LAYOUTS) | set(OURS) == set(READERS)


@pytest.mark.parametrize(
    ("name", "task", "found", "skipped", "texts"),
    [
        ("laion-coco", "", 1, 1, []),
        ("laion-coco", "restoration", 1, 1, []),
        ("object365", "", 1, 1, []),
        ("openimages", "", 1, 0, []),
        ("capsfusion", "", 1, 1, ["a dog stands among flowers"]),
        ("journeydb", "", 1, 2, []),
        ("grit", "", 1, 1, ["a dog <image_1><bbox_1> in a field of flowers <image_2><bbox_2>"]),
        ("multigen-20m", "", 2, 0, ["edges", "a grey wall"]),
        ("multigen-20m", "restoration", 1, 0, []),
        ("multigen-20m", "style", 1, 0, ["a grey wall"]),
        ("seed-edit", "", 2, 1, []),
        ("magicbrush", "", 1, 1, ["add a cat"]),
        ("hr-viton", "", 1, 1, ["<image_1>", "<image_2>"]),
        ("stylebooth", "", 1, 1, ["Oil Painting"]),
        ("llava-150k", "", 1, 1, ["What is it?"]),
        ("llavar", "", 1, 1, ["What is it?"]),
        ("scienceqa", "", 2, 1, ["Which is a metal?", "(B) wood"]),
    ],
)
def test_a_dataset_becomes_samples_and_what_is_broken_is_counted_and_named(name, task, found, skipped, texts, tmp_path, tiny):
    samples, skips = read(name, tmp_path, task)
    assert len(samples) == found and skips.total == skipped, skips.text()
    assert not any("0x" in reason or "out of range" in reason for reason in skips.reasons), skips.text()  # for people, and counted
    assert all(s.task == (task or READERS[name].tasks[0]) and s.source == name for s in samples)
    for text in texts:
        assert text in samples[0].turns[0].text
    tokenizer = Tokenizer.load(tiny)
    for sample in samples:  # the model can be shown it, and learns something from it
        seen, _ = plan(sample, tokenizer, 4000, 64)
        assert any(seen.trained)
    if skipped:
        assert all(skips.names[reason] for reason in skips.reasons) and str(skipped) in skips.text()


def test_pictures_are_where_they_belong(tmp_path):
    for name, shown, drawn in (("hr-viton", [30, 60], 90), ("stylebooth", [40], 80), ("seed-edit", [50], 70)):
        sample = read(name, tmp_path / name)[0]
        sample = max(sample, key=lambda s: len(s.turns))
        assert [mean(p) for p in sample.turns[0].pictures] == shown
        assert mean(sample.turns[-1].drawn) == drawn
    several = read("seed-edit", tmp_path / "again")[0]
    assert {len(s.turns) for s in several} == {2, 4}


def test_the_phrases_of_grit_are_cut_out_and_their_boxes_are_places_in_the_picture_to_be_made(tmp_path):
    [sample], _ = read("grit", tmp_path)
    turn = sample.turns[0]
    found = [tuple(round(v, 2) for v in (b.x, b.y, b.width, b.height)) for b in turn.boxes]
    assert found == [(0.1, 0.2, 0.5, 0.7), (0.7, 0.1, 0.2, 0.3)]
    assert turn.pictures[0].shape == (23, 20, 3)  # of 32 x 40
    assert sample.turns[1].drawn.shape == (32, 40, 3)


def test_text_of_a_dataset_never_becomes_a_tag(tmp_path):
    [sample], _ = read("llava-150k", tmp_path)
    assert "<image_9>" not in sample.turns[2].text and "image 9" in sample.turns[2].text


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_changes_the_picture_and_keeps_its_size(kind):
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    worse = DAMAGES[kind](picture, np.random.default_rng(1))
    assert worse.shape == picture.shape and worse.dtype == np.uint8
    assert np.abs(worse.astype(int) - picture).mean() > 5
    assert np.array_equal(worse, DAMAGES[kind](picture, np.random.default_rng(1)))


def test_a_caption_turns_into_a_question_and_a_picture_into_other_tasks(tmp_path):
    [sample], _ = read("capsfusion", tmp_path)
    asked = restate(sample, "understanding", np.random.default_rng(0))
    assert asked.turns[-1].text == "a dog stands among flowers" and asked.turns[-1].drawn is None
    mended = restate(sample, "restoration", np.random.default_rng(0))
    assert mended.turns[-1].drawn is sample.turns[-1].drawn
    assert not np.array_equal(mended.turns[0].pictures[0], mended.turns[-1].drawn)
    with pytest.raises(ValueError, match="draws no picture"):
        restate(asked, "reconstruction", np.random.default_rng(0))


def test_a_folder_of_the_wrong_kind_is_named(tmp_path):
    pytest.importorskip("webdataset")
    LAYOUTS["hr-viton"](tmp_path / "a")
    with pytest.raises(ValueError, match="does not hold stylebooth: there must be train.csv.* looks like hr-viton"):
        items("stylebooth", tmp_path / "a")
    with pytest.raises(ValueError, match="no folder of shards. It looks like hr-viton: `wegen data shards hr-viton"):
        Mixture.load(tmp_path / "a")
    with pytest.raises(ValueError, match="is not a folder"):
        items("grit", tmp_path / "b")
    with pytest.raises(ValueError, match="no dataset 'coco'; choose one of laion-coco"):
        items("coco", tmp_path)
    with pytest.raises(ValueError, match="grit has no task 'style'"):
        items("grit", tmp_path, "style")
    assert guesses(laion_coco(tmp_path / "c")) == list(TARS)  # three datasets come as img2dataset's tars


def test_a_tar_that_is_cut_off_gives_what_stands_before_the_cut(tmp_path):
    folder = LAYOUTS["laion-coco"](tmp_path)
    tar = folder / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:5200])
    skips = Skips(tmp_path / "skipped.jsonl")
    found = list(every(items("laion-coco", folder, "", skips), "x", skips))
    assert len(found) == 1 and "00000.tar" in skips.text() and "cut off or corrupt" in (tmp_path / "skipped.jsonl").read_text()


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["llava-150k", "journeydb", "scienceqa"])
def test_annotations_that_windows_saved_are_read(tmp_path, name, mark):
    def lost(skips):
        return sorted(skips.reasons.values())

    plain, skips = read(name, tmp_path / "plain")
    folder = LAYOUTS[name](tmp_path / "marked")
    for path in (*folder.rglob("*.json"), *folder.rglob("*.jsonl")):
        path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(mark))
    again = Skips()
    made = list(every(items(name, folder, "", again), name, again))
    assert [s.key for s in made] == [s.key for s in plain] and [t.text for s in made for t in s.turns] == [
        t.text for s in plain for t in s.turns
    ]
    assert lost(again) == lost(skips)


def test_a_line_that_is_no_text_is_one_line_lost(tmp_path):
    folder = LAYOUTS["journeydb"](tmp_path)
    path = next(folder.rglob("*.jsonl"))
    before, _ = read("journeydb", tmp_path / "again")
    path.write_bytes(b'{"img_path": "\xe4"}\n{"img_path": 1' + b"0" * 400 + b"}\n" + path.read_bytes())
    skips = Skips()
    assert len(list(every(items("journeydb", folder, "", skips), "journeydb", skips))) == len(before)
    assert any("is not text in UTF-8" in reason for reason in skips.reasons) and any("at img_path" in reason for reason in skips.reasons)


def test_paths_of_windows_are_found_and_rows_of_other_types_are_named(tmp_path):
    folder = LAYOUTS["llava-150k"](tmp_path)
    file = folder / "llava_instruct_150k.json"
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A wall."}]
    name = "000000033471.jpg"
    rows = [
        {"id": "1", "image": f"train2017\\{name}", "conversations": said},
        {"id": "2", "image": [name], "conversations": said},
        {"id": "3", "image": name, "conversations": [said[0], {"from": "gpt", "value": " "}]},
        "text",
    ]
    file.write_text(json.dumps(rows))
    skips = Skips()
    (made,) = every(items("llava-150k", folder, "", skips), "llava-150k", skips)
    assert made.key == "1" and made.turns[0].pictures[0] is not None
    assert skips.total == 3 and any("not a text" in r for r in skips.reasons) and any("an answer is empty" in r for r in skips.reasons)
    file.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="holds no list, so it is not the dataset's file"):
        list(items("llava-150k", folder, "", skips))


def test_a_long_field_of_a_table_is_read(tmp_path):
    folder = LAYOUTS["stylebooth"](tmp_path)
    path = folder / "train.csv"
    head, row, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\ufeff" + "\r\n".join([head, row.replace("{}", '"{' + "x" * 200_000 + '}"'), *rest]), encoding="utf-8")
    skips = Skips()
    assert len(list(every(items("stylebooth", folder, "", skips), "stylebooth", skips))) == 1 and skips.total == 1
