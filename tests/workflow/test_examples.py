"""The example workflows with the bundled miniature, without ComfyUI: each gives the picture or the words it promises."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wegen.nodes import NODE_CLASS_MAPPINGS
from wegen.wegen_model import workflow as graph
from wegen.wegen_model.mini.world.concepts import COLOURS

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
CORE = {
    "SaveImage",
    "PreviewImage",
    "PreviewAny",
    "MarkdownNote",
    "KSampler",
    "VAEEncode",
    "VAEDecode",
    "ComfySwitchNode",
    "StringContains",
}
NEED_COMFYUI = {"KSampler", "VAEEncode", "VAEDecode"}


def run(name: str, folder: Path, **changes) -> tuple[list[np.ndarray], list[str]]:
    """Pictures (h,w,3) in 0..1 and texts, in the order of the nodes."""
    workflow = graph.load_workflow(ROOT / "workflows" / f"{name}.json", NODE_CLASS_MAPPINGS)
    graph.set_values(workflow, [f"{node}={value}" for node, value in changes.items()])
    saved = graph.run(workflow, NODE_CLASS_MAPPINGS, out_dir=folder)
    pictures = [np.array(Image.open(s.path).convert("RGB")) / 255 for s in saved if s.kind == "image"]
    return pictures, [s.text for s in saved if s.kind == "text"]


def background(picture: np.ndarray) -> str:
    rim = np.concatenate([picture[:5].reshape(-1, 3), picture[-5:].reshape(-1, 3)])
    table = np.array(list(COLOURS.values())) / 255
    return list(COLOURS)[int(((table - np.median(rim, 0)) ** 2).sum(1).argmin())]


def drawn(picture: np.ndarray, x: float, y: float, width: float, height: float) -> float:
    """The share of a box (fractions) that differs from the picture's background."""
    s = picture.shape[0]
    part = picture[round(y * s) : round((y + height) * s), round(x * s) : round((x + width) * s)]
    return float((np.abs(part - np.array(COLOURS[background(picture)]) / 255).max(-1) > 0.2).mean())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_is_whole(path):
    nodes = json.loads(path.read_text())["nodes"]
    types = {n["type"] for n in nodes}
    assert types <= CORE | set(NODE_CLASS_MAPPINGS)
    assert any(n["type"] == "MarkdownNote" for n in nodes), "a note explains each workflow"
    assert path.with_suffix(".jpg").is_file(), "the template browser shows a same-named .jpg"
    if not types & NEED_COMFYUI:
        graph.check(graph.load_workflow(path, NODE_CLASS_MAPPINGS), NODE_CLASS_MAPPINGS)


def test_there_is_one_for_each_thing_and_most_run_without_comfyui():
    headless = [p for p in WORKFLOWS if not {n["type"] for n in json.loads(p.read_text())["nodes"]} & NEED_COMFYUI]
    assert len(WORKFLOWS) >= 17 and len(headless) >= 14


@pytest.mark.slow
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_runs(path, tmp_path):
    if {n["type"] for n in json.loads(path.read_text())["nodes"]} & NEED_COMFYUI:
        pytest.skip("this workflow uses ComfyUI's own samplers: it needs ComfyUI (tests/comfyui)")
    pictures, texts = run(path.stem, tmp_path)
    assert pictures and all(picture.std() > 0.01 for picture in pictures)


def test_text_to_picture(tmp_path):
    (picture,), _ = run("text_to_picture", tmp_path)
    assert background(picture) == "teal" and drawn(picture, 0.25, 0.25, 0.5, 0.5) > 0.5


def test_the_message_and_the_seed_decide(tmp_path):
    (a,), _ = run("text_to_picture", tmp_path / "a", **{"WeGenChat.message": "a star on a navy background"})
    (b,), _ = run("text_to_picture", tmp_path / "b", **{"WeGenChat.message": "a star on a navy background"})
    assert background(a) == "navy" and np.array_equal(a, b)
    (c,), _ = run("text_to_picture", tmp_path / "c", **{"WeGenChat.message": "a star on a navy background", "WeGenDecode.seed": 9})
    assert not np.array_equal(a, c)


def test_a_picture_survives_its_features(tmp_path):
    (first, _, again), _ = run("picture_to_features_and_back", tmp_path)
    assert -10 * np.log10(((first - again) ** 2).mean()) > 20


def test_two_references_land_in_their_boxes(tmp_path):
    pictures, _ = run("two_references_in_two_boxes", tmp_path)
    picture = pictures[-1]
    assert background(picture[20:60, :60]) == "orange"
    assert drawn(picture, 0.05, 0.55, 0.4, 0.4) > 0.3 and drawn(picture, 0.55, 0.05, 0.4, 0.4) > 0.2  # the boxes
    assert drawn(picture, 0.05, 0.05, 0.4, 0.4) < 0.1 and drawn(picture, 0.55, 0.55, 0.4, 0.4) < 0.1  # and nothing elsewhere


def test_questions_are_answered(tmp_path):
    pictures, texts = run("question_about_a_picture", tmp_path)
    assert {"a sailboat and a panda on a cyan background", "cyan", "sailboat, panda<bbox_1>"} <= set(texts)
    changed = np.abs(pictures[0] - pictures[-1]).max(-1) > 0.1  # the picture with boxes drawn on it
    assert 0.02 < changed.mean() < 0.4
    rows, columns = changed[24:-10, 24:-10].nonzero()  # within the frame and number of the picture's own box: the answer's
    assert (columns + 24).min() > 0.45 * changed.shape[1] and (rows + 24).min() > 0.15 * changed.shape[0], "around the panda, on the right"


def test_each_turn_changes_the_picture_before(tmp_path):
    pictures, _ = run("chat_refines_over_three_turns", tmp_path)
    assert [background(p) for p in pictures] == ["green", "blue", "blue"]
    assert drawn(pictures[1], 0.25, 0.25, 0.5, 0.5) > 0.4
    assert drawn(pictures[2], 0.6, 0.3, 0.3, 0.4) > 0.15 > drawn(pictures[1], 0.92, 0.3, 0.07, 0.4)


def test_the_panel_answers_the_message_that_waits_in_it(tmp_path):
    """Its transcript as shipped, and plain text in its place, as one says it without a browser."""
    (picture, grid), _ = run("chat_panel", tmp_path / "a")
    assert background(picture) == "green" and drawn(picture, 0.25, 0.25, 0.5, 0.5) > 0.5
    assert len(np.unique((grid * 255).round().reshape(-1, 3), axis=0)) > 8, "the features, as coloured cells"
    (picture, _), _ = run("chat_panel", tmp_path / "b", **{"WeGenChatPanel.transcript": "a star on a navy background"})
    assert background(picture) == "navy"


def test_features_are_material(tmp_path):
    """Half of the masked mixture is one picture's, half the other's; a - b + c turns blue into orange."""
    (linear, _, masked, calculated), _ = run("feature_mixing", tmp_path)
    assert background(masked[:, :50]) == "white" and background(masked[:, 80:]) == "beige"
    assert background(calculated) == "orange" and background(linear) not in ("orange", "blue")


def test_references_are_looked_at_twice(tmp_path):
    """Painted after the second look, each thing is nearer to its reference, which the collage holds; the rest stays."""
    pictures, _ = run("references_looked_at_twice", tmp_path)
    written, collage, twice = pictures[-3:]
    boxes = [(0.03, 0.4, 0.42, 0.55), (0.55, 0.05, 0.4, 0.45), (0.55, 0.6, 0.4, 0.35)]
    inside = np.zeros(written.shape[:2], bool)
    for x, y, w, h in boxes:
        part = slice(round(128 * y), round(128 * (y + h))), slice(round(128 * x), round(128 * (x + w)))
        inside[part] = True
        assert np.square(twice[part] - collage[part]).mean() < 0.8 * np.square(written[part] - collage[part]).mean()
    assert background(twice) == "beige" and np.abs(twice - written)[~inside].mean() < 0.02


def test_it_looks_at_what_it_drew_and_draws_once_more_only_if_something_lacks(tmp_path):
    name = "it_looks_at_what_it_drew"
    (_, first, result), texts = run(name, tmp_path / "a")
    assert "sailboat" not in texts[1] and not np.array_equal(first, result)
    assert drawn(result, 0.05, 0.3, 0.45, 0.45) > 0.2 > drawn(first, 0.05, 0.6, 0.4, 0.2)
    (_, first, result), texts = run(name, tmp_path / "b", **{"Is the sailboat there?.substring": "penguin"})
    assert "penguin" in texts[1] and np.array_equal(first, result)


def test_words_or_a_picture(tmp_path):
    (before, after), _ = run("words_or_a_picture", tmp_path / "a")
    assert background(before) == "blue" and background(after) == "teal"
    (before, after), texts = run("words_or_a_picture", tmp_path / "b", **{"WeGenChat.message": "<image_1> what colour is the background?"})
    assert "blue" in texts and np.array_equal(before, after), "nothing is drawn, the picture passes"


def test_the_kept_half_stays(tmp_path):
    """To the bit, in the PNGs; the other half is painted anew, and no seam shows between them."""
    (before, after), _ = run("redraw_one_region", tmp_path)
    assert np.array_equal(before[:, :64], after[:, :64])
    assert np.abs(before[:, 72:] - after[:, 72:]).mean() > 0.05
    seam, inside = (np.abs(np.diff(after[:, part], axis=1)).mean() for part in (slice(63, 65), slice(66, 127)))
    assert seam <= max(inside, 1 / 255)


def mask_of(preview: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(h,w) True where the preview of an edit is not darkened."""
    return (np.abs(preview - before) < 1 / 512).all(-1)


def test_edits_keep_the_rest(tmp_path):
    """A found place and a box, two edits one after the other: outside, the PNGs are the picture's before."""
    (fox, pair, preview, painted, boxed), _ = run("edit_and_keep_the_rest", tmp_path)
    changes = mask_of(preview, fox)
    assert np.array_equal(fox[~changes], painted[~changes]) and 0.1 < changes.mean() < 0.6
    eye = np.abs(fox - painted)[40:80, 40:90]
    assert eye.mean() > 0.1, "the fox is another colour"
    outside = np.ones(pair.shape[:2], bool)
    outside[26:102, 61:] = False  # the box 0.48 0.2 0.52 0.6, to whole pixels
    assert np.array_equal(pair[outside], boxed[outside])
    assert drawn(boxed, 0.6, 0.3, 0.3, 0.4) > 0.15, "the star"


def test_only_what_changes_is_painted(tmp_path):
    (before, preview, after), _ = run("find_what_an_edit_changes", tmp_path)
    changes = mask_of(preview, before)
    assert np.array_equal(before[~changes], after[~changes]) and 0.1 < changes.mean() < 0.6
    assert np.abs(before - after)[40:80, 40:90].mean() > 0.1


def test_variations_are_one_batch(tmp_path):
    pictures, _ = run("variations_side_by_side", tmp_path)
    assert len(pictures) == 4 and all(background(p) == "navy" for p in pictures)
    assert all(not np.array_equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])
    (second,), _ = run("variations_side_by_side", tmp_path / "b", **{"WeGenDecode.seed": 1, "WeGenDecode.variations": 1})
    assert np.abs(pictures[1] - second).max() <= 2 / 255


def test_a_sticker_is_cut_out_of_its_chequered_ground(tmp_path):
    """The plan is white around the teddy, the picture lime around it."""
    (chequered, picture, plan), _ = run("sticker_with_transparency", tmp_path)
    assert background(picture) == "lime" and drawn(picture, 0.25, 0.25, 0.6, 0.6) > 0.4
    assert drawn(picture, 0, 0, 0.2, 1) < 0.05 and chequered.shape == (128, 128, 3)
    corner = plan[round(0.8 * len(plan)) : round(0.83 * len(plan)), round(0.27 * len(plan)) : round(0.29 * len(plan))]
    assert corner.min() > 0.97
