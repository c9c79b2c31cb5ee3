"""DIIC with WeGen models: each kind by its contract with random weights, and open art end to end with the bundled miniature."""

import json

import numpy as np
import pytest
from wegen.tests.diic import film
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.data import shards
from wegen.wegen_model.diic import models
from wegen.wegen_model.diic.mini_backend import around, outermost, place
from wegen.wegen_model.diic.steps import iou

for module in ("webdataset", "av", "scenedetect", "cv2"):
    pytest.importorskip(module, reason=f'{module} is missing; pip install "wegen[data]"')


def test_a_wegen_folder_is_captioner_detector_and_embedder(tiny):
    picture = film.art_scene(*film.ART_SCENES[0], 0.5)
    assert isinstance(models.model("captioner", f"wegen:{tiny}").caption(picture), str)
    for i, b, score in models.model("detector", f"wegen:{tiny}").detect(picture, ["a fox", "the rocket"]):
        assert i in (0, 1) and isinstance(b, Box) and score == 1
    looks = models.model("embedder", f"wegen:{tiny}").embed([picture, picture[:, :60], picture])
    assert looks.shape[0] == 3 and np.allclose(np.linalg.norm(looks, axis=1), 1, atol=1e-5)
    assert looks[0] @ looks[2] > 0.9999 > looks[0] @ looks[1]


def test_things_stand_out_from_a_plain_ground(tiny):
    """Where they are does not depend on weights; what they are called does."""
    scene = film.ART_SCENES[2]
    picture = film.art_scene(*scene, 0.5)
    found, ground = models.model("detector", f"things:{tiny}").things(picture)
    assert ground == "beige" and len(found) == 2
    for (b, _), truth in zip(found, true_boxes(scene, 0.5)):
        assert iou(b, truth) > 0.8
    said = models.model("captioner", f"things:{tiny}").caption(picture)
    assert said.endswith("on a beige background.") and "at the upper left" in said
    crop = around(picture, Box(0.0, 0.0, 0.25, 0.5))
    assert crop.shape == (144, 144, 3)  # half of the picture and a quarter on each side; past the edge the ground goes on
    big, part, other = Box(0, 0, 0.5, 0.5), Box(0.1, 0.1, 0.1, 0.1), Box(0.6, 0.6, 0.2, 0.2)
    assert outermost([part, other, big]) == [big, other]
    assert (place(other), place(Box(0.4, 0.45, 0.2, 0.1))) == ("lower right", "middle")


@pytest.mark.parametrize(
    "kind, spec, said",
    [
        ("tracker", "wegen:wegen-mini", "or name a model: `transformers:ID`"),
        ("embedder", "things:wegen-mini", "`wegen:FOLDER`"),
        ("captioner", "wegen", "or name a model: `transformers:ID`, `wegen:FOLDER`, `things:FOLDER`"),
    ],
)
def test_what_is_not_offered_is_told(kind, spec, said):
    with pytest.raises(ValueError, match=said):
        models.check(kind, spec)
    with pytest.raises(ValueError, match="no model folder 'nowhere'"):
        models.model("captioner", "wegen:nowhere")


def true_boxes(scene, time) -> list[Box]:
    """Where the things of a scene of art are drawn, from left to right."""
    out = []
    for thing in scene[1]:
        changed = (film.art_scene(scene[0], [thing], time) != film.COLOURS[scene[0]]).any(-1)
        (top, bottom), (left, right) = ((v.min(), v.max() + 1) for v in np.nonzero(changed))
        h, w = changed.shape
        out.append(Box(left / w, top / h, (right - left) / w, (bottom - top) / h))
    return sorted(out, key=lambda b: b.x)


@pytest.mark.slow
def test_open_art_from_video_to_a_contact_sheet(tmp_path, capsys):
    """The bundled miniature names what moves; instances are the right drawings at the right places in both pictures of a pair."""
    film.write(tmp_path / "film" / "art.mp4", film.ART_SCENES, scene=film.art_scene)
    mini = ["--captioner", "things:wegen-mini", "--detector", "things:wegen-mini", "--embedder", "wegen:wegen-mini"]
    assert main(["data", "diic", str(tmp_path / "film"), str(tmp_path / "out"), "--least", "100", *mini]) == 0
    made = json.loads((tmp_path / "out/5-pair/diic.json").read_text())
    assert made["shots with motion"] == 4 and made["pairs"] >= 6 and made["instances a frame"] > 1
    overlaps, right = [], []
    for _, values, _ in shards.records(tmp_path / "out/4-track/art.mp4.tar"):
        scene = film.ART_SCENES[round(values["start"] / 2)]
        for instance in values["instances"]:
            right.append(any(name in instance["phrase"] for name, _, _ in scene[1]))
            for b, t in zip(instance["boxes"], values["times"]):
                if b is not None:
                    overlaps.append(max(iou(Box(*b), truth) for truth in true_boxes(scene, t - values["start"])))
    assert np.mean(right) > 0.6 and np.mean(overlaps) > 0.7, (right, overlaps)
    assert main(["data", "shards", "diic", str(tmp_path / "out/5-pair"), str(tmp_path / "shards")]) == 0
    assert main(["data", "inspect", str(tmp_path / "shards"), "--out", str(tmp_path / "sheet.png")]) == 0
    assert "samples of diic, subject" in capsys.readouterr().out and (tmp_path / "sheet.png").is_file()
