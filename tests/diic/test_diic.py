"""The DIIC builder from video to training samples, and Laion-COCO-Recaption: on video made here, with models without weights."""

import json

import numpy as np
import pytest
from wegen.tests.diic import film
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.data import shards
from wegen.wegen_model.data.items import Item, Skips, every
from wegen.wegen_model.data.readers import items
from wegen.wegen_model.data.sample import Sample, Turn, plan
from wegen.wegen_model.diic import models, run
from wegen.wegen_model.diic.noun_phrases import noun_phrases
from wegen.wegen_model.diic.options import Options
from wegen.wegen_model.diic.steps import _said, iou, pair

for module in ("webdataset", "av", "scenedetect", "cv2"):
    pytest.importorskip(module, reason=f'{module} is missing; pip install "wegen[data]"')


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two videos of three scenes, and what `wegen data diic` makes of them. Not to be written to."""
    folder = tmp_path_factory.mktemp("diic")
    film.write(folder / "videos/one.mp4")
    film.write(folder / "videos/two.mp4", film.SCENES[1:])
    assert main(["data", "diic", str(folder / "videos"), str(folder / "out")]) == 0
    return folder


def records(folder, video="one"):
    return list(shards.records(folder / f"{video}.tar"))


def test_cuts_are_found_and_something_moves_between_the_frames_of_a_shot(built):
    found = records(built / "out/1-shots")
    assert [round(v["start"]) for _, v, _ in found] == [0, 2, 4]
    for _, values, pictures in found:
        assert 2 <= len(pictures) <= 4 and len(values["times"]) == len(pictures)
        assert all(values["start"] < t < values["end"] for t in values["times"])
        assert all(np.abs(pictures[str(i)].astype(int) - pictures[str(i + 1)]).max() > 100 for i in range(len(pictures) - 1))


def true_box(colour, scene, time):
    """Where a thing of film.py is drawn."""
    picture = film.scene(scene[0], scene[1], time)
    at = np.argwhere(np.abs(picture.astype(int) - film.COLOURS[colour]).max(-1) < 3)
    (top, left), (bottom, right) = at.min(0), at.max(0) + 1
    return Box(left / film.SIZE[0], top / film.SIZE[1], (right - left) / film.SIZE[0], (bottom - top) / film.SIZE[1])


def test_what_the_captions_name_is_grounded_and_followed(built):
    found = records(built / "out/4-track")
    for (_, values, _), scene in zip(found, film.SCENES):
        colours = {c for c, _, _ in scene[1]}
        assert {i["phrase"].split()[1] for i in values["instances"]} == colours
        for instance in values["instances"]:
            boxes = instance["boxes"]
            assert len(boxes) == len(values["times"])
            followed = [
                iou(Box(*b), true_box(instance["phrase"].split()[1], scene, t - values["start"]))
                for b, t in zip(boxes, values["times"])
                if b
            ]
            assert followed[0] > 0.6 and np.mean(followed) > 0.4, (instance, followed)


def test_pairs_show_the_instances_and_their_places_in_both_pictures(built, tiny):
    skips = Skips()
    samples = list(every(items("diic", built / "out/5-pair", "", skips), "diic", skips))
    assert len(samples) >= 8 and not skips.total
    tokenizer = Tokenizer.load(tiny)
    for sample in samples:
        first, drawn, second, changed = sample.turns
        assert sample.task == "subject" and not np.array_equal(drawn.drawn, changed.drawn)
        for k, (crop, before, after) in enumerate(zip(first.pictures, first.boxes, second.boxes), 1):
            assert f"<image_{k}><bbox_{k}>" in first.text and f"<bbox_{k}>" in second.text
            assert abs(crop.shape[1] - before.width * drawn.drawn.shape[1]) <= 1 and (before.x, before.y) != (after.x, after.y)
        seen, slots = plan(sample, tokenizer, 4000, 64)
        assert sum(out for _, _, out in seen.pictures) == 2 and len(slots) == 2 + len(first.pictures)
    assert {len(s.turns[0].pictures) for s in samples} >= {1, 2}


def test_the_identity_window_leaves_out_strangers_and_copies():
    thing = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    thing[..., 0] = 255 - thing[..., 0] // 8  # reddish
    turned, other = np.rot90(thing).copy(), 255 - thing
    frames = {str(i): np.concatenate([p, np.zeros_like(p)], 1) for i, p in enumerate((thing, thing, turned, other))}
    box = [0.0, 0.0, 0.5, 1.0]
    values = {"captions": ["a thing"] * 4, "instances": [{"phrase": "a thing", "box": box, "boxes": [box, box, box, box]}]}
    look = models.model("embedder", "plain").embed([thing, turned, other])
    same, different = float(look[0] @ look[1]), float(look[1] @ look[2])
    assert same > different
    made = list(pair(("k", values, frames), Options(same=(same + different) / 2, copy=0.999)))
    assert [s.key for s in made] == ["k_1_2"]  # 0-1 is a copy, 2-3 are strangers
    values["instances"][0]["boxes"][2] = None
    assert not list(pair(("k", values, frames), Options(same=0.0, copy=0.999)))[1:]  # lost: no pair with frame 2


def test_numbers_stand_beside_the_papers(built, capsys):
    made = json.loads((built / "out/5-pair/diic.json").read_text())
    assert made["videos"] == 2 and made["shots with motion"] == 5 and 1 <= made["instances a frame"] <= 3
    assert main(["data", "diic", str(built / "videos"), str(built / "out")]) == 0
    told = capsys.readouterr().out
    assert "instances a frame" in told and "the paper's: 4.9" in told and "the paper's: 25.4" in told


def test_a_stopped_run_goes_on_and_gives_the_same(built, tmp_path, monkeypatch):
    done, real = [], run.process

    def stop(step, source, target, options):
        if len(done) == 5:
            done.append("stop")
            raise KeyboardInterrupt
        done.append((step, source.stem))
        return real(step, source, target, options)

    monkeypatch.setattr(run, "process", stop)
    again = tmp_path / "out"
    assert main(["data", "diic", str(built / "videos"), str(again)]) == 130
    assert main(["data", "diic", str(built / "videos"), str(again)]) == 0
    work = [d for d in done if d != "stop"]
    assert len(work) == len(set(work)) == 10  # nothing twice
    for tar in sorted((built / "out").glob("*/*.tar")):
        assert tar.read_bytes() == (again / tar.parent.name / tar.name).read_bytes(), tar


def test_other_options_in_the_same_folder_are_refused(built, capsys):
    assert main(["data", "diic", str(built / "videos"), str(built / "out"), "--frames", "3"]) == 2
    assert "was made with --frames 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--detector", "yolo"], "--detector 'yolo': write `plain`"),
        (["--same", "0.9", "--copy", "0.5"], "identity window"),
        (["--frames", "1"], "--frames is at least 2"),
        (["--phrases", "nltk"], "--phrases 'nltk'"),
    ],
)
def test_options_that_make_no_sense_are_refused(built, tmp_path, capsys, more, words):
    assert main(["data", "diic", str(built / "videos/two.mp4"), str(tmp_path / "x"), *more]) in (0, 2)
    assert words in "".join(capsys.readouterr())


def test_a_folder_without_video_and_a_video_that_is_none(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    assert main(["data", "diic", str(tmp_path / "a"), str(tmp_path / "out")]) == 2
    assert "no video in it" in capsys.readouterr().err
    (tmp_path / "a/bad.mp4").write_bytes(b"no video at all")
    skips = run.run("shots", run.videos(tmp_path / "a"), tmp_path / "out/1-shots", Options())
    assert skips.total == 1 and "not a video that can be read" in skips.text() and "bad.mp4" in skips.text()


def test_noun_phrases():
    caption = "A brown dog runs across the green field, and two children hold a red ball in the background."
    assert [t for _, _, t in noun_phrases(caption)] == ["A brown dog", "the green field", "two children", "a red ball"]
    assert noun_phrases("Nothing here") == []


def test_marks_stand_behind_what_they_name_even_out_of_order():
    two = [{"phrase": "a cat"}, {"phrase": "the red ball"}, {"phrase": "a hat"}]
    assert _said("The red ball rolls to a cat.", two, True) == (
        "The red ball rolls to a cat <image_1><bbox_1>. the red ball <image_2><bbox_2>, a hat <image_3><bbox_3>"
    )
    assert _said("a cat with the red ball", two[:2], False) == "a cat <bbox_1> with the red ball <bbox_2>"


def test_a_short_and_a_long_caption_a_picture(tmp_path, capsys):
    pictures = [film.scene(*film.SCENES[i], 0.5) for i in range(2)]
    drawn = [
        Sample("reconstruction", (Turn("user", "again", (p,), (None,)), Turn("assistant", "", drawn=p)), f"p{i}")
        for i, p in enumerate(pictures)
    ]
    words = Sample("understanding", (Turn("user", "a"), Turn("assistant", "b")), "w")
    shards.write([Item(s.key, lambda s=s: s) for s in (*drawn, words)], tmp_path / "in")
    assert main(["data", "recaption", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "draws no picture" in told and "the paper's: 79.6" in told
    skips = Skips()
    made = list(every(items("laion-coco-recaption", tmp_path / "out", "", skips), "", skips))
    asked = list(every(items("laion-coco-recaption", tmp_path / "out", "understanding", skips), "", skips))
    assert [s.task for s in made] == ["text-to-picture"] * 2 and len(asked) == 2 and not skips.total
    short, long = made[0].turns[0].text, made[0].turns[1].text
    assert "a red shape" in short and "percent" in long and "percent" not in short


@pytest.mark.slow
def test_ray_data_gives_the_same_shards(built, tmp_path):
    pytest.importorskip("ray.data", reason='Ray Data is missing; pip install "ray[data]"')
    assert main(["data", "diic", str(built / "videos"), str(tmp_path / "out"), "--engine", "ray", "--workers", "2"]) == 0
    for tar in sorted((built / "out").glob("*/*.tar")):
        assert tar.read_bytes() == (tmp_path / "out" / tar.parent.name / tar.name).read_bytes(), tar


def test_without_ray_the_message_says_what_to_install(built, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert main(["data", "diic", str(built / "videos"), str(tmp_path), "--engine", "ray"]) == 1
    assert 'pip install "ray[data]"' in capsys.readouterr().err
