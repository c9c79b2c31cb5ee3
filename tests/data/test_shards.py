"""Shards and mixtures: what is read is what was written, the order is a function of the step, damage is named."""

import json

import numpy as np
import pytest
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.data import shards
from wegen.wegen_model.data.items import Item, Skips
from wegen.wegen_model.data.mixture import Mixture
from wegen.wegen_model.data.sample import Sample, Turn

wds = pytest.importorskip("webdataset")


def flat(value):
    picture = np.full((12, 16, 3), value, np.uint8)
    picture[:6, :, 0] = 200
    return picture


def painted(i, words=3):
    return Sample("text-to-picture", (Turn("user", f"number {i} " + "word " * words), Turn("assistant", "", drawn=flat(i))), f"k.{i}/x")


def write(folder, n=10, per_shard=4, make=painted, skips=None):
    things = [Item(str(i), lambda i=i: make(i)) for i in range(n)]
    return shards.write(things, folder, "made", skips, per_shard, lossless=True)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "made")
    return tmp_path / "made"


def numbers(samples):
    return [int(s.turns[0].text.split()[1]) for s in samples]


def test_what_is_read_is_what_was_written(tmp_path):
    p = flat(7)
    sample = Sample(
        "subject",
        (
            Turn("user", "a <image_1><bbox_1> <bbox_2>", (p, None), (Box(0.1, 0.2, 0.3, 0.4), Box(0, 0, 1, 1))),
            Turn("assistant", "so", drawn=p),
        ),
        "a/b.c",
        "here",
    )
    shards.write([Item("x", lambda: sample)], tmp_path, lossless=True)
    back = shards.sample(tmp_path / "shard-000000.tar", 0)
    assert back.key == "a/b.c" and back.source == "here" and back.turns[0].boxes == sample.turns[0].boxes
    assert np.array_equal(back.turns[0].pictures[0], p) and back.turns[1].drawn is back.turns[0].pictures[0]  # stored once


def test_webdataset_reads_the_shards_too(folder):
    found = list(wds.WebDataset(str(folder / "shard-000000.tar"), shardshuffle=False).decode("rgb8"))
    assert len(found) == 4 and np.array_equal(found[1]["0.png"], flat(1)) and found[1]["json"]["task"] == "text-to-picture"


def test_writing_that_was_stopped_goes_on_and_ends_with_the_same_files(tmp_path, folder):
    seen = []

    def stop(i):
        seen.append(i)
        if i == 6 and seen.count(6) == 1:
            raise KeyboardInterrupt
        return painted(i)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "again", make=stop)
    assert not list((tmp_path / "again").glob("*.part"))
    assert write(tmp_path / "again", make=stop) == 10
    assert seen == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9]  # whole shards are not made again
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("lost", ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar", "shard-000001.index.json"])
def test_a_shard_that_was_lost_is_written_anew_and_the_others_stay(tmp_path, folder, lost):
    seen = []
    write(tmp_path / "again")
    (tmp_path / "again" / lost).unlink()
    assert write(tmp_path / "again", make=lambda i: seen.append(i) or painted(i)) == 10
    number = int(lost[6:12])
    assert seen == list(range(10))[4 * number : 4 * number + 4]
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_a_full_disk_leaves_whole_shards_only(tmp_path, monkeypatch):
    def full(self, key, *rest):
        if key == "k.5/x":
            raise OSError(28, "No space left on device")
        return add(self, key, *rest)

    add = shards.Shard.record
    monkeypatch.setattr(shards.Shard, "record", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard-000000.index.json", "shard-000000.tar"]
    assert shards.counts(tmp_path) == {"shard-000000.tar": 4}


def test_an_epoch_shows_every_sample_once_whatever_the_number_of_ranks(folder):
    for world in (1, 2, 5):
        mixture = Mixture.load(folder)
        mixture.orders[0].source = mixture.sources[0] = mixture.sources[0].__class__(folder, batch=2)
        shown = [numbers(mixture.samples(s, r, world).samples) for s in range(-(-5 // world)) for r in range(world)][:5]
        assert sorted(sum(shown, [])) == list(range(10))


def mixed(tmp_path, **more):
    write(tmp_path / "a", 10)
    write(tmp_path / "b", 9, make=lambda i: painted(100 + i, 40 * (i % 2)))
    made = {"seed": 3, "batch": 2, "sources": [{"shards": "a", "weight": 3}, {"shards": "b"}], **more}
    (tmp_path / "mix.json").write_text(json.dumps(made))
    return tmp_path / "mix.json"


def test_the_order_is_a_pure_function_of_seed_rank_and_step(tmp_path):
    path = mixed(tmp_path)
    one, other = Mixture.load(path), Mixture.load(path)
    asked = [(s, r) for s in range(30) for r in range(2)]
    first = {at: numbers(one.samples(*at, 2).samples) for at in asked}
    assert {at: numbers(other.samples(*at, 2).samples) for at in reversed(asked)} == first  # in any order, from any start
    assert [first[s, 0] for s in range(30)] != [first[s, 1] for s in range(30)]
    other.seed = 4
    assert [numbers(other.samples(*at, 2).samples) for at in asked] != list(first.values())
    assert all(len({n >= 100 for n in batch}) == 1 for batch in first.values())  # a batch is of one source
    share = np.mean([batch[0] < 100 for batch in first.values()])
    assert 0.6 < share < 0.9


def test_a_batch_is_alike_in_length_and_ranks_can_draw_the_same_source(tmp_path):
    mixture = Mixture.load(mixed(tmp_path, together=True))
    for step in range(20):
        batches = [numbers(mixture.samples(step, r, 3).samples) for r in range(3)]
        assert len({batch[0] >= 100 for batch in batches}) == 1
    lengths = [[len(s.turns[0].text) for s in mixture.samples(step).samples] for step in range(20)]
    uneven = sum(max(n) - min(n) > 50 for n in lengths if n)
    assert uneven <= 4  # 9 samples: five short, four long; one batch of an epoch may hold both


def test_restoration_is_made_anew_at_each_step_and_again_when_asked_again(tmp_path):
    write(tmp_path / "a", 2)
    (tmp_path / "m.json").write_text(json.dumps({"batch": 2, "sources": [{"shards": "a", "as": "restoration"}]}))
    mixture = Mixture.load(tmp_path / "m.json")

    def shown(step):
        return [s.turns[0].pictures[0] for s in sorted(mixture.samples(step).samples, key=lambda s: s.key)]

    assert all(np.array_equal(a, b) for a, b in zip(shown(0), shown(0)))
    assert any(not np.array_equal(a, b) for a, b in zip(shown(0), shown(1)))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: p.unlink(), "has vanished"),
        (lambda p: p.write_bytes(p.read_bytes()[:3000]), "is cut off"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"number", b"numbex")), "is corrupt"),
        (lambda p: p.with_suffix(shards.INDEX).unlink(), "index shard-000001.index.json is missing"),
        (lambda p: p.with_suffix(shards.INDEX).write_text("{"), "not the index of a shard"),
    ],
)
def test_a_harmed_shard_is_skipped_and_named_and_the_batch_is_full(folder, harm, words):
    shards._index.cache_clear()
    harm(folder / "shard-000001.tar")
    mixture = Mixture.load(folder)
    drawn = [mixture.samples(0), mixture.samples(1)]
    assert all(len(d.samples) == 8 for d in drawn)
    skipped = [text for d in drawn for text in d.skipped]
    assert any(words in text and "shard-000001" in text for text in skipped), skipped
    assert not set(numbers(drawn[0].samples)) & ({5, 6, 7} if words != "is cut off" else {7})


def test_a_source_of_which_nothing_can_be_read_stops_with_the_reason(folder):
    shards._index.cache_clear()
    for tar in folder.glob("*.tar"):
        tar.unlink()
    with pytest.raises(ValueError, match="20 samples in a row cannot be read.*has vanished"):
        Mixture.load(folder).samples(0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a mixture"),
        ('{"sources": []}', "at least one source"),
        ('{"sources": [{"weight": 1}]}', "KeyError: 'shards'"),
        ('{"sources": [{"shards": "a", "as": "painting"}]}', "cannot be read as 'painting'; choose one of reconstruction"),
        ('{"sources": [{"shards": "a", "batch": 0}]}', "batches 1"),
        ('{"sources": [{"shards": "gone"}]}', "no such folder of shards"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(tmp_path, text, words):
    write(tmp_path / "a", 2)
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        Mixture.load(tmp_path / "m.json")


def test_broken_samples_are_counted_when_shards_are_written(tmp_path):
    skips = Skips()
    assert write(tmp_path, 5, make=lambda i: painted(i) if i != 2 else Sample("style", (Turn("user", "x"),), "bad"), skips=skips) == 4
    assert "1 x sample bad: the last turn must be the assistant's" in skips.text()
