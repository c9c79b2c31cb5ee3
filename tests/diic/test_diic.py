"""The DIIC builder from video to training samples, and Laion-COCO-Recaption: on video made here, with models without weights."""

import json
import shutil

import numpy as np
import pytest
from wegen.tests.diic import film
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.data import shards
from wegen.wegen_model.data.items import Item, Skips, every
from wegen.wegen_model.data.readers import items
from wegen.wegen_model.data.readers.files import cut
from wegen.wegen_model.data.sample import Sample, Turn, plan
from wegen.wegen_model.diic import colour_backend, models, run, steps
from wegen.wegen_model.diic.noun_phrases import noun_phrases
from wegen.wegen_model.diic.options import ORDER, Options
from wegen.wegen_model.diic.steps import _said, iou, pair
from wegen.wegen_model.diic.units import units

for module in ("webdataset", "av", "scenedetect", "cv2"):
    pytest.importorskip(module, reason=f'{module} is missing; pip install "wegen[data]"')


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two videos of three and two scenes, and what `wegen data diic` makes of them. Not to be written to."""
    folder = tmp_path_factory.mktemp("diic")
    film.write(folder / "videos/one.mp4")
    film.write(folder / "videos/two.mp4", film.OTHER)
    assert main(["data", "diic", str(folder / "videos"), str(folder / "out"), *SMALL]) == 0
    return folder


SMALL = ["--least", "100"]


def records(folder, video="one.mp4"):
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


def test_only_the_shots_and_the_samples_hold_frames(built):
    for step, holds in (("2-caption", False), ("3-ground", False), ("4-track", False), ("1-shots", True)):
        for _, values, pictures in records(built / "out" / step):
            assert any(name.isdigit() for name in pictures) == holds
            assert all(p.shape[0] < 60 for name, p in pictures.items() if name.startswith("look_"))


def test_things_are_grounded_in_every_frame(built):
    for _, values, _ in records(built / "out/3-ground"):
        assert len(values["found"]) == len(values["times"]) and sum(map(bool, values["found"])) >= 3


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
            assert (before.x, before.y) != (after.x, after.y) and " moves " in second.text
            for picture, b in ((drawn.drawn, before), (changed.drawn, after)):  # another look of the thing, no copy of what is to be drawn
                assert not same(crop, cut(picture, b))
        seen, slots = plan(sample, tokenizer, 4000, 64)
        assert sum(out for _, _, out in seen.pictures) == 2 and len(slots) == 2 + len(first.pictures)
    assert {len(s.turns[0].pictures) for s in samples} >= {1, 2}


def same(a, b):
    """Whether two cut-outs hold the same pixels but for what JPEG does to them."""
    return a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 4


def test_the_identity_window_leaves_out_strangers_and_copies():
    thing = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    thing[..., 0] = 255 - thing[..., 0] // 8  # reddish
    turned, other = np.rot90(thing).copy(), 255 - thing
    frames = {str(i): np.concatenate([p, np.zeros_like(p)], 1) for i, p in enumerate((thing, thing, turned, other))}
    box = [0.0, 0.0, 0.5, 1.0]
    instance = {"phrase": "a thing", "boxes": [box, box, box, box]}
    values = {"captions": ["a thing"] * 4, "instances": [instance], "motion": [{"subject": 0.1}] * 3}
    mirrored = thing[:, ::-1].copy()
    look = models.model("embedder", "plain").embed([thing, turned, other, mirrored])
    least, most = min(look[0] @ look[1], look[3] @ look[0], look[3] @ look[1]), look[1] @ look[2]
    assert least > most
    o = Options(same=(least + most) / 2, copy=0.999)
    (made,) = pair([("k", values, {**frames, "look_0_0": mirrored})], o)
    assert [s.key for s in made] == ["k_1_2"]  # 0-1 is a copy, 2-3 are strangers
    assert np.array_equal(made[0].turns[0].pictures[0], mirrored)  # of neither picture that is drawn
    two = {**values, "instances": [{**instance, "boxes": [box, box]}]}
    assert pair([("k", two, {"0": frames["1"], "1": frames["2"], "look_0_0": thing})], o) == [[]]  # nothing but copies to show
    instance["boxes"][2] = None
    assert not pair([("k", values, {**frames, "look_0_0": mirrored})], Options(same=0.0, copy=0.999))[0][1:]  # lost: no pair with frame 2


def test_numbers_stand_beside_the_papers(built, capsys):
    made = json.loads((built / "out/5-pair/diic.json").read_text())
    assert made["pieces of film"] == 2 and made["shots with motion"] == 5 and 1 <= made["instances a frame"] <= 3
    seen = [
        b
        for video in ("one.mp4", "two.mp4")
        for _, v, _ in records(built / "out/4-track", video)
        for i in v["instances"]
        for b in i["boxes"]
    ]
    frames = sum(len(v["times"]) for video in ("one.mp4", "two.mp4") for _, v, _ in records(built / "out/4-track", video))
    assert made["frames"] == frames and made["instances a frame"] == pytest.approx(sum(b is not None for b in seen) / frames)
    assert main(["data", "diic", str(built / "videos"), str(built / "out"), *SMALL]) == 0
    told = capsys.readouterr().out
    assert "instances a frame" in told and "the paper's: 4.9" in told and "the paper's: 25.4" in told
    assert all(f"frames/s, {step}" in told for step in ORDER) and "a million frames:" in told


def test_a_stopped_run_goes_on_and_gives_the_same(built, tmp_path, monkeypatch):
    done, real = [], run.process

    def stop(work, options):
        if len(done) == 5:
            done.append("stop")
            raise KeyboardInterrupt
        done.append((work.step, work.unit.name))
        return real(work, options)

    monkeypatch.setattr(run, "process", stop)
    again = tmp_path / "out"
    assert main(["data", "diic", str(built / "videos"), str(again), *SMALL]) == 130
    assert main(["data", "diic", str(built / "videos"), str(again), *SMALL]) == 0
    work = [d for d in done if d != "stop"]
    assert len(work) == len(set(work)) == 10  # nothing twice
    for tar in sorted((built / "out").glob("*/*.tar")):
        assert tar.read_bytes() == (again / tar.parent.name / tar.name).read_bytes(), tar


def test_other_options_in_the_same_folder_are_refused(built, capsys):
    assert main(["data", "diic", str(built / "videos"), str(built / "out"), *SMALL, "--frames", "3"]) == 2
    assert "was made with --frames 4" in capsys.readouterr().err


@pytest.fixture
def own(built, tmp_path):
    """A copy of what was built, to be changed."""
    shutil.copytree(built, tmp_path / "own")
    return tmp_path / "own"


def again(folder, *more):
    """The same command once more; the shards that it wrote."""

    def written():
        return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in (folder / "out").glob("*/*.tar")}

    before = written()
    code = main(["data", "diic", str(folder / "videos"), str(folder / "out"), *SMALL, *more])
    return code, sorted(name for name, when in written().items() if before.get(name) != when)


def test_nothing_is_written_that_did_not_change(own):
    assert again(own) == (0, [])
    assert again(own, "--batch", "3") == (0, [])  # changes no result
    assert again(own, "--same", "0.5")[0] == 2
    code, written = again(own, "--same", "0.5", "--redo")
    assert code == 0 and written == ["out/5-pair/one.mp4.tar", "out/5-pair/two.mp4.tar"]


def test_a_film_that_changed_is_made_anew_and_one_that_went_is_told(own, capsys):
    film.write(own / "videos/two.mp4", film.OTHER[:1])
    code, written = again(own)
    assert code == 0 and written == sorted(f"out/{folder}/two.mp4.tar" for folder in run.FOLDERS.values())
    assert all(len(pictures) >= 2 for _, _, pictures in records(own / "out/1-shots", "two.mp4"))  # not by the index of before
    shutil.copy(own / "videos/one.mp4", own / "videos/copy.mp4")
    (own / "videos/two.mp4").unlink()
    code, written = again(own)
    told = capsys.readouterr().out
    assert code == 0 and "two.mp4.tar: its film is no longer in" in told and "its frames are another film's too" in told
    assert {name.rpartition("/")[2] for name in written} == {"copy.mp4.tar", "one.mp4.tar"}  # copy.mp4 comes first by name


def test_a_film_with_a_watermark_is_left_out_or_kept(own, capsys):
    index = own / "out/1-shots/two.mp4.index.json"
    made = json.loads(index.read_text())
    made["notes"]["watermark"] = [0.9, 0.9, 0.05, 0.05]
    index.write_text(json.dumps(made))
    code, written = again(own)
    assert code == 0 and "out/2-caption/two.mp4.tar" in written and "out/2-caption/one.mp4.tar" not in written
    assert "2 x the film has a watermark" in capsys.readouterr().out
    assert again(own, "--watermark", "keep", "--redo")[0] == 0 and "has a watermark" not in capsys.readouterr().out


def test_files_of_one_name_in_several_folders(tmp_path):
    film.write(tmp_path / "videos/clip1/video.mp4", film.SCENES[:1])
    film.write(tmp_path / "videos/clip2/video.mp4", film.OTHER[:1])
    assert main(["data", "diic", str(tmp_path / "videos"), str(tmp_path / "out"), *SMALL]) == 0
    found = {v["video"] for tar in (tmp_path / "out/1-shots").glob("*.tar") for _, v in shards.values(tar)}
    assert found == {"clip1/video.mp4", "clip2/video.mp4"}


def test_a_record_that_breaks_a_batch_costs_itself(built, tmp_path, monkeypatch):
    real = colour_backend.Captioner.captions

    def broken(self, pictures):
        if any(colour_backend.NAMES[colour_backend.named(p)[2, 2]] == "navy" for p in pictures):
            raise ValueError("this picture cannot be captioned")
        return real(self, pictures)

    monkeypatch.setattr(colour_backend.Captioner, "captions", broken)
    found = units(built / "videos", 600)
    work = run.plan("caption", found[:1], tmp_path, {})[0]
    shutil.copytree(built / "out/1-shots", tmp_path / "1-shots")
    run.process(work, Options(batch=100, least=100))
    kept = [v["start"] for _, v in shards.values(tmp_path / "2-caption/one.mp4.tar")]
    assert kept == [0.0, 4.0]
    assert shards.Index.load(tmp_path / "2-caption/one.mp4.tar").notes["skipped"] == {"this picture cannot be captioned": 1}


def test_things_that_come_later_are_found_and_followed_back(tmp_path):
    """A thing that the first frame does not show is an instance too, and one that is lost and found again stays one."""
    box, far = [0.1, 0.1, 0.2, 0.2], [0.6, 0.6, 0.2, 0.2]
    pictures = {str(i): np.full((40, 60, 3), 10 * i, np.uint8) for i in range(3)}
    thing, late = ({"phrase": p, "box": b, "score": 1.0} for p, b in (("a fox", box), ("a cat", far)))
    values = {"times": [0.0, 1.0, 2.0], "found": [[thing], [late], [thing, late]]}

    class Follower:
        """Follows the cat both ways; loses the fox at once."""

        def track(self, frames, boxes):
            return [[b] + ([b] * (len(frames) - 1) if b.x > 0.5 else [None] * (len(frames) - 1)) for b in boxes]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "model", lambda *_: Follower())
        (made,) = steps.track([("k", values, pictures)], Options(), lambda v: [(0.5, pictures["0"]), (1.5, pictures["1"])])
    values, looks = made
    found = {i["phrase"]: [b is not None for b in i["boxes"]] for i in values["instances"]}
    assert found == {"a fox": [True, False, True], "a cat": [True, True, True]}
    assert sorted(looks) == ["look_1_0", "look_1_1"] and all(p.shape == (8, 12, 3) for p in looks.values())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--detector", "yolo"], "--detector 'yolo': write `plain`"),
        (["--same", "0.9", "--copy", "0.5"], "identity window"),
        (["--frames", "1"], "--frames is at least 2"),
        (["--phrases", "nltk"], "--phrases 'nltk'"),
        (["--precision", "int3"], "--precision is one of auto, float32"),
        (["--watermark", "no"], "--watermark is drop or keep"),
        (["--unit", "1"], "--unit is at least 10 seconds"),
    ],
)
def test_options_that_make_no_sense_are_refused(built, tmp_path, capsys, more, words):
    assert main(["data", "diic", str(built / "videos/two.mp4"), str(tmp_path / "x"), *SMALL, *more]) in (0, 2)
    assert words in "".join(capsys.readouterr())


def test_a_folder_without_video_and_a_video_that_is_none(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    assert main(["data", "diic", str(tmp_path / "a"), str(tmp_path / "out")]) == 2
    assert "no video in it" in capsys.readouterr().err
    (tmp_path / "a/bad.mp4").write_bytes(b"no video at all")
    skips = run.run("shots", run.plan("shots", units(tmp_path / "a", 600), tmp_path / "out", {}), tmp_path / "out/1-shots", Options())
    assert skips.total == 1 and "not a video that can be read" in skips.text() and "bad.mp4" in skips.text()


def test_noun_phrases():
    caption = "A brown dog runs across the green field, and two children hold a red ball in the background."
    assert [t for _, _, t in noun_phrases(caption)] == ["A brown dog", "the green field", "two children", "a red ball"]
    assert noun_phrases("Nothing here") == []


def test_marks_stand_behind_what_they_name_even_out_of_order():
    two = [{"phrase": "a cat"}, {"phrase": "the red ball"}, {"phrase": "a hat"}]
    assert _said("The red ball rolls to a cat.", two) == (
        "The red ball <image_2><bbox_2> rolls to a cat <image_1><bbox_1>. a hat <image_3><bbox_3>"
    )
    assert _said("a cat with the red ball", two[:2]) == "a cat <image_1><bbox_1> with the red ball <image_2><bbox_2>"
    twins = [{"phrase": "a cat"}, {"phrase": "a cat"}]
    assert _said("a catalogue, a cat and a cat", twins) == "a catalogue, a cat <image_1><bbox_1> and a cat <image_2><bbox_2>"


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
    assert main(["data", "diic", str(built / "videos"), str(tmp_path / "out"), *SMALL, "--engine", "ray", "--workers", "1"]) == 0
    for tar in sorted((built / "out").glob("*/*.tar")):
        assert tar.read_bytes() == (tmp_path / "out" / tar.parent.name / tar.name).read_bytes(), tar


def test_without_ray_the_message_says_what_to_install(built, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert main(["data", "diic", str(built / "videos"), str(tmp_path), "--engine", "ray"]) == 1
    assert 'pip install "ray[data]"' in capsys.readouterr().err
