"""The miniature's data recipe: scenes, tasks, and the art's errors. No network; drawings here are coloured shapes."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from wegen.wegen_model.mini import art as art_module
from wegen.wegen_model.mini import packages
from wegen.wegen_model.mini.art import Art, ArtError, cache_path, load_art
from wegen.wegen_model.mini.concepts import (
    COLOURS,
    CONCEPTS,
    DRAWINGS,
    HELD_OUT_DRAWINGS,
    HELD_OUT_NAMES,
    NAMES,
    OFFERED_STYLES,
    STYLES,
    TRAINED_STYLES,
    article,
    held_out_combination,
)
from wegen.wegen_model.mini.draws import in_reading_order
from wegen.wegen_model.mini.effects import EFFECTS, apply
from wegen.wegen_model.mini.scenes import (
    CENTRE,
    Item,
    Scene,
    boxed,
    canonical,
    grid_box,
    grid_boxes,
    mask,
    overlap,
    pair,
    render,
    tint,
)
from wegen.wegen_model.mini.tasks import MIX, TAG, TASKS, Sample, corpus, expected, sample

SEEDS = range(4000)


@pytest.fixture(scope="module")
def fake_art():
    """Each thing an opaque rectangle of its own colour and shape, inside a transparent rim."""
    sprites = {}
    for i, concept in enumerate(CONCEPTS):
        sprite = np.zeros((256, 256, 4), np.uint8)
        sprite[20 + 3 * i : 240, 10:250] = (6 * i, 255 - 6 * i, 100, 255)
        sprites[concept.name, "noto"] = sprite
    return Art(sprites)


@pytest.fixture(scope="module")
def train():
    return [sample(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def heldout():
    return [sample(seed, split="heldout") for seed in SEEDS]


def scenes_of(one: Sample):
    for turn in one.turns:
        yield from (ref.scene for ref in turn.references if ref.scene)
        if turn.picture:
            yield turn.picture


def is_held_out(scene: Scene) -> bool:
    return any(held_out_combination(item.concept, scene.background) for item in scene.items)


# -- concepts --------------------------------------------------------------------------------------------------


def test_the_table_offers_24_things_and_keeps_8():
    assert (len(NAMES), len(HELD_OUT_NAMES), len(COLOURS)) == (24, 8, 16)
    assert len({c.name for c in CONCEPTS}) == len({c.codepoint for c in CONCEPTS}) == 32
    assert all(c.name.isalpha() and c.name.islower() for c in CONCEPTS)


def test_a_tenth_of_the_drawings_and_one_vendor_are_kept_out_of_training(train):
    assert len(DRAWINGS) > 1000 and 0.07 < len(HELD_OUT_DRAWINGS) / len(DRAWINGS) < 0.13
    named = {c.codepoint for c in CONCEPTS}
    assert not {*DRAWINGS} & {*HELD_OUT_DRAWINGS} and not named & {*DRAWINGS, *HELD_OUT_DRAWINGS}
    assert [s for s in STYLES if s not in TRAINED_STYLES] == ["noto-v1"]
    used = {(i.concept, i.style) for one in train for scene in scenes_of(one) for i in scene.items}
    assert {style for _, style in used} <= {*TRAINED_STYLES}
    assert not {concept for concept, _ in used} & {*HELD_OUT_DRAWINGS, *HELD_OUT_NAMES}
    assert len({concept for concept, _ in used} & {*DRAWINGS}) > 500


def test_colours_are_far_apart_in_cielab():
    def lab(rgb):
        rgb = np.array(rgb) / 255
        rgb = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
        f = np.cbrt(xyz / (0.9505, 1.0, 1.089))
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    names = list(COLOURS)
    apart = {(a, b): np.linalg.norm(lab(COLOURS[a]) - lab(COLOURS[b])) for a in names for b in names if a < b}
    assert min(apart.values()) > 20, min(apart, key=apart.get)


def test_about_one_combination_in_twelve_is_held_out_and_white_never():
    held = [(c, k) for c in NAMES for k in COLOURS if held_out_combination(c, k)]
    assert 1 / 16 < len(held) / (len(NAMES) * len(COLOURS)) < 1 / 9
    assert "white" not in {colour for _, colour in held}
    assert max(Counter(c for c, _ in held).values()) <= 4 and max(Counter(k for _, k in held).values()) <= 6
    assert held[:3] == [("cat", "yellow"), ("dog", "gray"), ("dog", "brown")]  # trained weights depend on it


@pytest.mark.parametrize("word, phrase", [("cat", "a cat"), ("apple", "an apple"), ("umbrella", "an umbrella"), ("orange", "an orange")])
def test_article(word, phrase):
    assert article(word) == phrase


# -- scenes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", COLOURS)
def test_background_is_exact(fake_art, colour):
    picture = render(canonical("cat", colour), fake_art)
    assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == tuple(picture[-1, -1]) == COLOURS[colour]


def test_a_thing_fills_its_box_less_the_margin_and_keeps_its_aspect(fake_art):
    sprite = fake_art.sprite("cat")  # 240 wide, 220 high
    shown = mask(canonical("cat", "red"), 0, fake_art)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    width, height = len(columns), len(rows)
    assert width == round(96 * 0.92) and abs(width / height - 240 / 220) < 0.02
    assert abs((columns[0] + columns[-1]) / 2 - 63.5) <= 0.5 and abs((rows[0] + rows[-1]) / 2 - 63.5) <= 0.5
    picture = render(canonical("cat", "red"), fake_art)
    assert np.abs(picture[64, 64].astype(int) - sprite[128, 128, :3]).max() <= 1
    assert (picture[shown == 0] == COLOURS["red"]).all()


def test_edges_mix_thing_and_background_without_a_dark_rim():
    yy, xx = np.mgrid[:256, :256]
    disc = np.zeros((256, 256, 4), np.uint8)  # transparent black around white: the classic fringe
    disc[(yy - 128) ** 2 + (xx - 128) ** 2 < 110**2] = 255
    art = Art({("ball", "noto"): disc})
    picture = render(canonical("ball", "white"), art)
    assert picture.min() >= 253
    cover = mask(canonical("ball", "white"), 0, art)
    assert ((cover > 0) & (cover < 255)).sum() > 50


def test_pair_is_left_then_right_and_masks_tell_them_apart(fake_art):
    scene = pair("cat", "dog", "blue")
    left, right = mask(scene, 0, fake_art), mask(scene, 1, fake_art)
    assert left[:, :64].any() and not left[:, 64:].any()
    assert right[:, 64:].any() and not right[:, :64].any()


def test_a_later_thing_covers_an_earlier_one(fake_art):
    scene = boxed(["cat", "dog"], [CENTRE, CENTRE], "blue")
    assert tuple(render(scene, fake_art)[64, 64]) == tuple(render(canonical("dog", "blue"), fake_art)[64, 64])
    assert mask(scene, 0, fake_art)[64, 64] == 0 and mask(scene, 1, fake_art)[64, 64] == 255


def test_a_box_that_leaves_the_picture_is_cut(fake_art):
    picture = render(Scene("blue", (Item("cat", "noto", (0.75, 0.75, 0.5, 0.5)),)), fake_art)
    assert tuple(picture[-1, -1]) != COLOURS["blue"] and tuple(picture[0, 0]) == COLOURS["blue"]
    outside = render(Scene("blue", (Item("cat", "noto", (1.5, -2.0, 0.5, 0.5)),)), fake_art)
    assert (outside == COLOURS["blue"]).all()


def test_scenes_are_values(fake_art):
    assert canonical("cat", "red") == canonical("cat", "red") and len({canonical("cat", "red"), canonical("cat", "red")}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        canonical("cat", "red").background = "blue"
    assert (render(canonical("cat", "red"), fake_art) == render(canonical("cat", "red"), fake_art)).all()


def test_unknown_names_are_said(fake_art):
    with pytest.raises(ValueError, match="mauve.*white"):
        render(canonical("cat", "mauve"), fake_art)
    with pytest.raises(ArtError, match="zebra.*cat"):
        render(canonical("zebra", "red"), fake_art)


@pytest.mark.parametrize("cells", [(3,), (4,), (5,), (4, 4), (3, 5), (3, 3)])
def test_grid_boxes_lie_on_the_grid_and_apart(cells):
    rng = random.Random(0)
    for _ in range(200):
        boxes = grid_boxes(rng, cells)
        assert all((value * 8).is_integer() for box in boxes for value in box)
        assert all(x >= 0 and y >= 0 and x + w <= 1 and y + h <= 1 and w == h for x, y, w, h in boxes)
        assert [box[2] * 8 for box in boxes] == list(cells)
        assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_no_room_is_none_or_an_error():
    assert grid_box(random.Random(0), 4, [(0.25, 0.25, 0.5, 0.5)]) is None
    with pytest.raises(ValueError, match="do not fit"):
        grid_boxes(random.Random(0), (5, 5))


# -- effects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_changes_the_picture_as_its_seed_says(fake_art, name):
    plain = canonical("cat", "orange")
    done = [render(dataclasses.replace(plain, effect=f"{name}:{seed}"), fake_art) for seed in (1, 1, 2)]
    assert done[0].shape == (128, 128, 3) and (done[0] == done[1]).all() and (done[0] != render(plain, fake_art)).any()
    assert (done[0] != done[2]).any() == (name in ("noise", "holes"))


def test_conditions_show_only_lines_and_shapes(fake_art):
    scene = canonical("cat", "orange")
    shape = render(dataclasses.replace(scene, effect="silhouette"), fake_art)
    assert ((shape[..., 0] > 127) == (mask(scene, 0, fake_art) > 127)).all() and set(np.unique(shape)) == {0, 255}
    edges = render(dataclasses.replace(scene, effect="edges"), fake_art)
    assert set(np.unique(edges)) == {0, 255} and 0 < (edges > 0).mean() < 0.2 and not edges[60:68, 60:68].any()


def test_an_unknown_effect_is_named():
    with pytest.raises(ValueError, match="'rain'.*blur"):
        apply("rain:3", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))


def test_tint_keeps_the_shape_and_takes_the_colour(fake_art):
    sprite = fake_art.fitted("cat", "noto", 64, 64)
    painted = tint(sprite, COLOURS["red"])
    assert (painted[..., 3] == sprite[..., 3]).all()
    r, g, b = painted[32, 32, :3].astype(int)
    assert r > g + 50 and r > b + 50


# -- tasks -----------------------------------------------------------------------------------------------------


def test_a_sample_is_a_function_of_its_seed_alone(train):
    assert [sample(seed) for seed in SEEDS[:300]] == train[:300]
    assert sample(7, dict(reversed(MIX.items()))) == train[7]
    assert len(set(train)) > 0.5 * len(train)  # hashable, and varied


def test_a_sample_is_the_same_in_another_process():
    code = ("import hashlib; from wegen.wegen_model.mini.tasks import sample; "
            "print(hashlib.sha256(repr([sample(i) for i in range(200)]).encode()).hexdigest())")
    found = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1] != ""


def test_the_mix_is_kept(train):
    counts = Counter(one.task for one in train)
    assert set(MIX) == set(TASKS)
    assert all(abs(counts[task] / len(train) - weight / sum(MIX.values())) < 0.03 for task, weight in MIX.items())
    assert {sample(seed, {"pair": 1}).task for seed in range(50)} == {"pair"}


def test_unknown_task_or_split_is_named():
    with pytest.raises(ValueError, match="juggle.*references"):
        sample(0, {"juggle": 1.0})
    with pytest.raises(ValueError, match="test.*heldout"):
        sample(0, split="test")


def test_no_held_out_combination_or_concept_is_in_any_training_picture(train):
    for one in train:
        for scene in scenes_of(one):
            assert not is_held_out(scene), one
            assert all(item.concept in NAMES or item.concept in DRAWINGS for item in scene.items)


def test_every_held_out_target_is_held_out(heldout):
    for one in heldout:
        last = expected(one) or one.turns[0].references[0].scene
        assert is_held_out(last), one


def test_every_trained_combination_is_reached():
    seen = {(i.concept, s.background) for seed in range(6000) for s in scenes_of(sample(seed)) for i in s.items if i.concept in NAMES}
    assert seen == {(c, k) for c in NAMES for k in COLOURS if not held_out_combination(c, k)}


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_tags_match_references(split, train, heldout):
    for one in train if split == "train" else heldout:
        for turn in one.turns:
            tags = {(kind, int(k)) for kind, k in TAG.findall(turn.text)}
            given = {("image", k) for k, ref in enumerate(turn.references, 1) if ref.scene}
            given |= {("bbox", k) for k, ref in enumerate(turn.references, 1) if ref.box}
            assert tags == given, turn
            assert len(TAG.findall(turn.text)) == len(tags)


def test_boxes_are_where_the_things_are_drawn(train):
    laid = whole = 0
    for one in train:
        if one.task not in ("boxes", "references"):
            continue
        items, references = expected(one).items, one.turns[0].references
        assert len(items) == len(references)
        for item, ref in zip(items, references):
            assert ref.box in (item.box, None)
            if ref.scene:  # shown where it will stand, or whole
                (seen,) = ref.scene.items
                assert (seen.concept, seen.style) == (item.concept, item.style) and seen.box in (item.box, CENTRE)
                laid, whole = laid + (seen.box == item.box), whole + (seen.box == CENTRE)
    assert laid > 300 and whole > 30


def test_texts_say_what_is_drawn(train):
    for one in train:
        text, target = one.turns[0].text, expected(one)
        assert "{" not in text and text == text.lower() and len(text.split()) <= 18
        if one.task in ("text", "pair", "boxes"):
            assert all(item.concept in text for item in target.items)
            assert {item.style for item in target.items} == {"3d" if "3d style" in text else "noto"}
            assert target.background in text or target.background == "white"
            if one.task == "pair" and "to the right of" in text:
                assert text.index(target.items[1].concept) < text.index(target.items[0].concept)
            elif one.task == "pair":
                assert text.index(f"{target.items[0].concept} ") < text.index(f" {target.items[1].concept}")


def test_articles_are_right_everywhere(train):
    for one in train:
        for turn in one.turns:
            words = TAG.sub(" ", turn.text).replace(",", " ").split()
            for word, following in zip(words, words[1:]):
                if word in ("a", "an"):
                    assert (word == "an") == (following[0] in "aeiou"), turn.text


def test_answers_are_true(train):
    for one in train:
        if one.task not in ("name", "caption", "colour", "count", "where"):
            continue
        user, answer = one.turns[:2]
        scene = user.references[0].scene
        assert answer.picture is None and expected(one) is None
        if one.task == "colour":
            assert answer.text == scene.background
        elif one.task == "count":
            assert answer.text == ("one", "two", "three")[len(scene.items) - 1]
        elif one.task == "where":
            assert len(one.turns) == 2 * len(scene.items)
            for user, answer in zip(one.turns[::2], one.turns[1::2]):
                item = next(item for item in scene.items if item.concept in user.text.replace("?", "").split())
                *passed, last = answer.text.removesuffix(" <bbox_1>").split(", ")
                assert last == item.concept and answer.references[0].box == item.box
                assert passed == in_reading_order(scene)[: len(passed)]
        else:
            assert all(item.concept in answer.text for item in scene.items)
            assert answer.text.endswith(f" {scene.background} background" if one.task == "caption" else f", {scene.items[0].style} style")


def test_copied_things_differ_from_their_drawings(train):
    """Mirrored and hue-turned, the shown thing and the painted one alike."""
    seen = Counter()
    for one in (one for one in train if one.task == "references"):
        for ref, item in zip(one.turns[0].references, expected(one).items):
            if ref.scene and (item.mirrored or item.hue):
                shown = ref.scene.items[0]
                assert (shown.mirrored, shown.hue) == (item.mirrored, item.hue)
                seen[item.mirrored, item.hue > 0] += 1
    assert len(seen) == 3 and min(seen.values()) > 10


def test_mirrored_and_turned_things_are_drawn():
    sprite = np.full((160, 160, 4), (255, 0, 0, 255), np.uint8)
    sprite[:, 80:] = (0, 0, 255, 255)  # red on the left, blue on the right
    two = Art({(NAMES[0], "noto"): sprite})
    left, right = (64, 40), (64, 88)
    for how, wanted in (({}, ((255, 0, 0), (0, 0, 255))), ({"mirrored": True}, ((0, 0, 255), (255, 0, 0))),
                        ({"hue": 128}, ((0, 255, 255), (255, 255, 0)))):
        picture = render(Scene("white", (Item(NAMES[0], "noto", CENTRE, **how),)), two)
        for at, colour in zip((left, right), wanted):
            assert np.abs(picture[at].astype(int) - colour).max() < 12, how


def test_refining_changes_one_thing_a_turn(train):
    lengths = Counter()
    for one in (one for one in train if one.task == "refine"):
        lengths[len(one.turns)] += 1
        pictures = [turn.picture for turn in one.turns[1::2]]
        for before, after, request in zip(pictures, pictures[1:], one.turns[2::2]):
            things = [[item.concept for item in scene.items] for scene in (before, after)]
            assert {i.style for i in after.items} == {i.style for i in before.items}
            if before.background != after.background:
                assert things[0] == things[1] and after.background in request.text
            elif len(after.items) > len(before.items):
                assert things[0][0] in things[1]
                assert ("left" in request.text) == (things[1][1] == things[0][0])
            else:
                assert things[0] != things[1]
    assert lengths[4] > lengths[6] > 20


def test_edits_change_what_they_say(train):
    kinds = Counter()
    for one in (one for one in train if one.task == "edit"):
        text, before, after = one.turns[0].text, one.turns[0].references[0].scene, expected(one)
        first, rest = before.items[0], before.items[1:]
        if "remove" in text or "without" in text:
            assert after == dataclasses.replace(before, items=rest) and first.concept in text
            kinds["remove"] += 1
        elif "<bbox_2>" in text and len(after.items) > len(before.items):
            assert after.items[:-1] == before.items and after.items[-1].box == one.turns[0].references[1].box
            kinds["add"] += 1
        elif "<bbox_2>" in text:
            assert after.items[0] == dataclasses.replace(first, box=one.turns[0].references[1].box) and after.items[1:] == rest
            kinds["move"] += 1
        elif "background" in text:
            assert after.items == before.items and after.background in text
            kinds["background"] += 1
        else:
            assert after.items[1:] == rest and after.background == before.background
            kinds["paint" if after.items[0].tint else "replace"] += 1
            assert (after.items[0].tint or after.items[0].concept) in text
    assert len(kinds) == 6 and min(kinds.values()) > 20


def test_damaged_pictures_are_answered_with_whole_ones(train):
    done = Counter()
    for one in (one for one in train if one.task in ("restore", "condition")):
        shown, target = one.turns[0].references[0].scene, expected(one)
        assert shown.items == target.items and shown.effect and not target.effect
        done[shown.effect.split(":")[0]] += 1
    assert set(done) == set(EFFECTS) and min(done.values()) > 20


def test_style_transfer_keeps_the_thing_and_its_place(train):
    for one in (one for one in train if one.task == "style"):
        (before,), (after,) = one.turns[0].references[0].scene.items, expected(one).items
        assert (before.concept, before.box) == (after.concept, after.box) and before.style != after.style in OFFERED_STYLES
        assert after.style in one.turns[0].text


def test_rewriting_tells_the_picture(train):
    plain = {one.turns[0].text for one in train if one.task == "text"}
    for one in (one for one in train if one.task == "rewrite"):
        user, answer = one.turns
        thing, colour = answer.picture.items[0].concept, answer.picture.background
        assert answer.text == f"{article(thing)} on {article(colour)} background"
        assert user.text not in plain  # the same words never ask for both


def test_corpus_is_text_without_tags():
    pieces = list(corpus(400))
    assert len(pieces) > 400 and not any(TAG.search(piece) or not piece.strip() for piece in pieces)


# -- art -------------------------------------------------------------------------------------------------------


def test_another_package_is_refused_with_both_hashes(monkeypatch, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nprintf 'something else' > art.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ArtError) as error:
        load_art(cache=tmp_path / "cache")
    found = hashlib.sha256(b"something else").hexdigest()
    for part in ("@iconify-json/noto@1.2.9", STYLES["noto"].sha256, found):
        assert part in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_missing_npm_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArtError, match="npm was not found.*Node.js"):
        load_art(cache=tmp_path)


def test_a_failing_npm_is_quoted(monkeypatch, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network getaddrinfo ENOTFOUND' >&2\n"
                   "echo 'npm error A complete log of this run is in x' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ArtError, match="could not fetch @iconify-json/noto@1.2.9: npm error network getaddrinfo ENOTFOUND$"):
        load_art(cache=tmp_path)


def package(*_):
    body = '<rect x="2" y="2" width="12" height="12" fill="#0a0"/>'
    icons = {c.name: {"body": body} for c in CONCEPTS}
    return {"icons.json": json.dumps({"width": 16, "height": 16, "icons": icons}).encode(),
            "chars.json": json.dumps({c.codepoint: c.name for c in CONCEPTS}).encode()}


def test_missing_resvg_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    monkeypatch.setattr(packages, "members", package)
    with pytest.raises(ArtError, match="pip install resvg-py"):
        load_art(["noto"], cache=tmp_path)


def test_drawings_that_are_not_svg_are_read_by_code_point(monkeypatch, tmp_path):
    data = io.BytesIO()
    Image.new("RGBA", (40, 20), (0, 0, 200, 255)).save(data, "WEBP", lossless=True)
    monkeypatch.setattr(packages, "members", lambda style: {"assets/1f431.webp": data.getvalue(), "assets/2b50-fe0f.webp": data.getvalue(),
                                                            "assets/1f1e6.webp": b"not wanted", "README.md": b""})
    art = load_art(["3d"], cache=tmp_path)
    assert sorted(art.keys()) == [("cat", "3d"), ("star", "3d")]
    sprite = art.sprite("cat", "3d")
    assert sprite.shape == (160, 160, 4) and tuple(sprite[80, 80]) == (0, 0, 200, 255) and sprite[5, 80, 3] == 0


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"not a zip" * 99])
def test_a_damaged_cache_is_made_again(monkeypatch, tmp_path, damage):
    pytest.importorskip("resvg_py")
    monkeypatch.setattr(packages, "members", package)
    load_art(["noto"], cache=tmp_path)
    path = cache_path("noto", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no temporary file is left
    path.write_bytes(damage(path.read_bytes()))
    sprite = load_art(["noto"], cache=tmp_path).sprite("cat")
    assert sprite.shape == (160, 160, 4) and tuple(sprite[80, 80]) == (0, 170, 0, 255) and sprite[0, 0, 3] == 0
    monkeypatch.setattr(packages, "members", None)  # from here on only the cache can answer
    assert (load_art(["noto"], cache=tmp_path).sprite("cat") == sprite).all()


def test_a_full_disk_is_said_and_leaves_nothing(monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(art_module, "draw", lambda *_: {c.name: np.zeros((160, 160, 4), np.uint8) for c in CONCEPTS})
    monkeypatch.setattr(art_module.np, "savez_compressed", full)
    with pytest.raises(ArtError, match="disk is full.*WEGEN_CACHE"):
        load_art(cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_absent_cache_is_not_fetched_when_told_so(tmp_path):
    with pytest.raises(ArtError, match="fetch=True"):
        load_art(cache=tmp_path, fetch=False)
    with pytest.raises(ArtError, match="no style 'crayon'.*noto"):
        load_art(["crayon"], cache=tmp_path)


def test_the_real_art_is_opaque_things_that_differ():
    if not cache_path("noto").exists():
        pytest.skip(f"the art is not drawn yet ({cache_path('noto')}): load_art() makes it")
    art = load_art(["noto"], fetch=False)
    small = {c.name: render(canonical(c.name, "gray"), art, 32).astype(int) for c in CONCEPTS}
    for name in small:
        assert 0.15 < (mask(canonical(name, "gray"), 0, art) > 127).mean() < 0.6, name
        assert min(np.abs(small[name] - small[other]).mean() for other in small if other != name) > 8, name
