"""The miniature's conversations: concepts, splits, and what each task shows, says and asks."""

import dataclasses
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from wegen.wegen_model.mini.tasks import MIX, TAG, TASKS, Sample, corpus, sample
from wegen.wegen_model.mini.tasks.sampling import in_reading_order
from wegen.wegen_model.mini.world.concepts import (
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
from wegen.wegen_model.mini.world.effects import EFFECTS
from wegen.wegen_model.mini.world.scenes import CENTRE, Scene

SEEDS = range(4000)


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


# -- tasks -----------------------------------------------------------------------------------------------------


def test_a_sample_is_a_function_of_its_seed_alone(train):
    assert [sample(seed) for seed in SEEDS[:300]] == train[:300]
    assert sample(7, dict(reversed(MIX.items()))) == train[7]
    assert len(set(train)) > 0.5 * len(train)  # hashable, and varied


def test_a_sample_is_the_same_in_another_process():
    code = (
        "import hashlib; from wegen.wegen_model.mini.tasks import sample; "
        "print(hashlib.sha256(repr([sample(i) for i in range(200)]).encode()).hexdigest())"
    )
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
        last = one.turns[-1].picture or one.turns[0].references[0].scene
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
    drawn = cut = whole = 0
    for one in train:
        if one.task not in ("boxes", "references"):
            continue
        items, references = one.drawn.items, one.turns[0].references
        assert len(items) == len(references)
        for item, ref in zip(items, references):
            assert ref.box in (item.box, None)
            if ref.scene:  # shown where it will stand: drawn there, or cut out and laid there; or whole
                (seen,), effect = ref.scene.items, ref.scene.effect
                assert (seen.concept, seen.style) == (item.concept, item.style) and seen.box in (item.box, CENTRE)
                assert effect in ("", f"laid:{' '.join(map(str, ref.box or ()))}") and (not effect or seen.box == CENTRE)
                kind = (seen.box == item.box, bool(effect))
                drawn, cut, whole = drawn + (kind == (True, False)), cut + kind[1], whole + (kind == (False, False))
    assert drawn > 150 and cut > 150 and whole > 30


def test_texts_say_what_is_drawn(train):
    for one in train:
        text, target = one.turns[0].text, one.turns[-1].picture
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
        assert answer.picture is None and one.shown == scene
        with pytest.raises(ValueError, match=f"a sample of {one.task} ends with no picture"):
            _ = one.drawn
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
        for ref, item in zip(one.turns[0].references, one.drawn.items):
            if ref.scene and (item.mirrored or item.hue):
                shown = ref.scene.items[0]
                assert (shown.mirrored, shown.hue) == (item.mirrored, item.hue)
                seen[item.mirrored, item.hue > 0] += 1
    assert len(seen) == 3 and min(seen.values()) > 10


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
        text, before, after = one.turns[0].text, one.shown, one.drawn
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
        shown, target = one.shown, one.drawn
        assert shown.items == target.items and shown.effect and not target.effect
        done[shown.effect.split(":")[0]] += 1
    assert set(done) == set(EFFECTS) and min(done.values()) > 20


def test_style_transfer_keeps_the_thing_and_its_place(train):
    for one in (one for one in train if one.task == "style"):
        (before,), (after,) = one.turns[0].references[0].scene.items, one.drawn.items
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
