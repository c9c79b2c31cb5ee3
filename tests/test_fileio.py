"""Files written whole or not at all, and JSON from outside within bounds."""

import dataclasses
import json
import os
import re
import threading
import time

import pytest
from PIL import Image
from wegen.tests.support import tiny_model
from wegen.wegen_model import fileio
from wegen.wegen_model.chat.canvas_state import parse_placement
from wegen.wegen_model.chat.chat_state import parse_transcript
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.config import PRESETS, ModelConfig
from wegen.wegen_model.data import shards
from wegen.wegen_model.data.image_folder import PictureFolder
from wegen.wegen_model.data.mixture import Mixture

HUGE = "1" + "0" * 400  # 10^400
DEEP = "[" * 100_000 + "]" * 100_000


# --- writing


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(RuntimeError), fileio.atomic(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    fileio.write_text(path, "ä", sync=True)
    with pytest.raises(KeyboardInterrupt), fileio.atomic(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == "ä" and os.listdir(path.parent) == ["a.txt"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    writers = [threading.Thread(target=lambda c=c: [fileio.write_text(path, c * 100_000) for _ in range(20)]) for c in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() in ("a" * 100_000, "b" * 100_000) and os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_goes_after_a_day_and_nothing_else(tmp_path):
    path, old = tmp_path / "a[1].txt", time.time() - 2 * fileio.OLD
    left, young, other = fileio.beside(path), fileio.beside(path), tmp_path / ".a1.txt.00000000.part"
    for file in (left, young, other):
        file.write_text("half")
    for file in (left, other):
        os.utime(file, (old, old))
    fileio.write_text(path, "whole")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, young.name, other.name}


def test_a_long_name_has_room_for_what_is_written_beside_it(tmp_path):
    fileio.write_text(tmp_path / ("ä" * 120), "x")
    assert len(os.listdir(tmp_path)) == 1


# --- reading JSON


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_read(mark, tmp_path):
    (tmp_path / "a.json").write_bytes('{"ä": [1, 2.5, 18446744073709551615, null]}'.encode(mark))
    assert fileio.read_json(tmp_path / "a.json") == {"ä": [1, 2.5, 2**64 - 1, None]}
    assert fileio.parse_json("\ufeff[1]", "a") == [1]


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "a.json is not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        (b"\xff\xfe\xff", "a.json is not text in UTF-16"),
        (b'{"a": "\xe4"}', "a.json is not text in UTF-8 .byte 7"),
        (DEEP, "a.json is nested too deeply"),
        ("[" * 65 + "]" * 65, "a.json is nested too deeply"),
        (f'{{"a": [0, {{"b": {HUGE}}}]}}', r"a.json holds 100000000000… .401 digits. at a\[1\].b, a number that cannot be kept"),
        ('{"a": 1e400}', "a.json holds 1e400 at a, a number"),
        ('{"a": 18446744073709551616}', "a.json holds 18446744073709551616 at a,"),
        ("[NaN]", r"a.json holds NaN at \[0\], a number"),
        ("-Infinity", "a.json holds -Infinity, a number"),
        ('"' + "x" * 200 + '"', "a.json is longer than"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_file_and_field(text, words):
    with pytest.raises(fileio.JSONError, match=words):
        fileio.parse_json(text, "a.json", max_bytes=150 if "xxx" in str(text) else fileio.MAX_BYTES)


def test_a_lenient_reader_gets_none_for_such_numbers_and_depth_up_to_the_bound_is_read():
    assert fileio.parse_json(f'{{"is_changed": [NaN], "seed": {HUGE}}}', "w", lenient=True) == {"is_changed": [None], "seed": None}
    assert fileio.parse_json("[" * 64 + "]" * 64, "a")


def test_a_file_is_not_read_past_its_bound(tmp_path):
    (tmp_path / "a.json").write_text("[" + "1," * 1000 + "1]")
    with pytest.raises(fileio.JSONError, match="a.json is longer than"):
        fileio.read_json(tmp_path / "a.json", max_bytes=100)


@dataclasses.dataclass
class Inner:
    grid: tuple[int, int] = (8, 8)
    colours: tuple[tuple[float, ...], ...] = ()


@dataclasses.dataclass
class Outer:
    name: str
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    inner: Inner = dataclasses.field(default_factory=Inner)
    scale: float = 1.0
    on: bool = False
    notes: dict | None = None
    words: list[str] = dataclasses.field(default_factory=list)


def test_a_dataclass_of_what_json_holds():
    values = {"name": "a", "sizes": {"b": 1}, "inner": {"grid": [2, 3], "colours": [[0, 0.5]]}, "scale": 2, "notes": None, "words": ["c"]}
    made = fileio.from_dict(Outer, values, "a.json")
    assert made == Outer("a", {"b": 1}, Inner((2, 3), ((0, 0.5),)), 2, False, None, ["c"])


@pytest.mark.parametrize(
    "values, words",
    [
        ([], r"a.json: Outer is \[\], not an object"),
        ({}, "a.json: name is missing"),
        ({"wings": 2}, "unknown keys in Outer: wings"),
        ({"name": 3}, "a.json: name is 3, not a text"),
        ({"name": "a", "sizes": {"b": True}}, "a.json: sizes.b is true, not a whole number"),
        ({"name": "a", "inner": {"grid": [1, 2, 3]}}, r"a.json: inner.grid is \[1, 2, 3\], not a list of 2"),
        ({"name": "a", "inner": {"grid": [1, 2.5]}}, r"a.json: inner.grid\[1\] is 2.5, not a whole number"),
        ({"name": "a", "inner": {"colours": [["x"]]}}, r'a.json: inner.colours\[0\]\[0\] is "x", not a number'),
        ({"name": "a", "inner": 4}, "a.json: inner is 4, not an object"),
        ({"name": "a", "scale": "2"}, 'a.json: scale is "2", not a number'),
        ({"name": "a", "on": 1}, "a.json: on is 1, not true or false"),
        ({"name": "a", "notes": 1}, "a.json: notes is 1, not an object"),
        ({"name": "a", "words": "abc"}, 'a.json: words is "abc", not a list'),
    ],
)
def test_values_of_another_type_are_refused_by_file_and_field(values, words):
    with pytest.raises(fileio.JSONError, match=words):
        fileio.from_dict(Outer, values, "a.json")


# --- where it is used


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_read_as_it_was_written(name):
    config = PRESETS[name]
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))).vision == config.vision
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))).decoder == config.decoder


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: text.replace('"heads": 4', '"heads": "4"'), r'config.json: not a valid.*vision.heads is "4", not a whole number'),
        (
            lambda text: text.replace('"heads": 4', f'"heads": {HUGE}'),
            "config.json: not a valid.*100000000000… .401 digits. at vision.heads",
        ),
        (lambda text: text.replace('"steps": 3', '"steps": 1e400'), "config.json: not a valid.*holds 1e400 at decoder.steps"),
        (lambda text: text.replace('"format_version": 1', '"format_version": "1"'), "config.json: not a valid.*format_version is '1'"),
        (lambda text: DEEP, "config.json: not a valid.*nested too deeply"),
        (lambda text: text.replace('"name": "tiny"', '"name": ["tiny"]'), r'config.json: not a valid.*name is \["tiny"\], not a text'),
    ],
)
def test_a_model_folder_with_a_bad_configuration(tmp_path, change, words):
    folder = tiny_model(tmp_path / "m", parts=("vision",))
    text = (folder / "config.json").read_text()
    assert change(text) != text
    (folder / "config.json").write_text(change(text))
    with pytest.raises(model_folder.CheckpointError, match=words):
        model_folder.read_config(folder)


def test_a_configuration_of_windows_is_read(tmp_path):
    folder = tiny_model(tmp_path / "m", parts=("vision",))
    before = model_folder.read_config(folder)
    (folder / "config.json").write_text((folder / "config.json").read_text(), encoding="utf-8-sig")
    assert model_folder.read_config(folder) == before


@pytest.mark.parametrize(
    "file, text, words",
    [
        ("added_tokens.json", f'{{"<img>": {HUGE}}}', "added_tokens.json holds 100000000000… .401 digits. at <img>"),
        ("added_tokens.json", '{"<img>": "3"}', "added_tokens.json: the id of '<img>' is '3', not a whole number"),
        ("added_tokens.json", "[1]", "added_tokens.json: not a table of tokens"),
        ("added_tokens.json", DEEP, "added_tokens.json is nested too deeply"),
        ("tokenizer.json", "[]", "tokenizer.json: not a valid tokenizer"),
        ("tokenizer.json", '{"added_tokens": [{"content": "<s>", "id": true}]}', "tokenizer.json: the id of '<s>' is 'True'"),
        ("tokenizer.json", '{"added_tokens": 5}', "tokenizer.json: not a valid tokenizer .added_tokens is no list"),
        ("tokenizer.json", '{"model": 5}', "tokenizer.json: not a valid tokenizer"),
        ("tokenizer.json", "{", "tokenizer.json is not JSON"),
    ],
)
def test_a_bad_tokenizer_is_refused_by_file_and_field(tmp_path, file, text, words):
    folder = tiny_model(tmp_path / "m", parts=("vision",))
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(folder)) + "/" + words):
        Tokenizer.load(folder)


@pytest.mark.parametrize("text", [f'{{"weight_map": {{"a": {HUGE}}}}}', DEEP, '{"weight_map": {"a": NaN}}'])
def test_a_bad_index_of_weights_is_refused(tmp_path, text):
    folder = tiny_model(tmp_path / "m", parts=("vision",))
    (folder / "vision.safetensors").unlink()
    (folder / "vision.safetensors.index.json").write_text(text)
    with pytest.raises(
        model_folder.CheckpointError, match="vision.safetensors.index.json: not a valid.*(at weight_map.a|nested too deeply)"
    ):
        model_folder.files(folder, "vision")


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"keys": "abc"}', "is missing"),
        ('{"keys": 1, "tasks": [], "lengths": [], "offsets": [], "sizes": [], "crcs": []}', "keys is 1, not a list"),
        ('{"keys": ["a"], "tasks": [], "lengths": [], "offsets": [], "sizes": [], "crcs": []}', "do not fit together"),
        ('{"keys": ["a"], "tasks": ["t"], "lengths": [1], "offsets": [-5], "sizes": [9], "crcs": [0]}', "do not fit together"),
        (DEEP, "nested too deeply"),
    ],
)
def test_a_bad_index_of_a_shard_is_refused(tmp_path, text, words):
    (tmp_path / "shard-000000.index.json").write_text(text)
    with pytest.raises(shards.Unreadable, match=f"index.json: damaged, or not the index of a shard .*{words}"):
        shards.Index.load(tmp_path / "shard-000000.tar")


def test_a_bad_catalogue_and_a_bad_mixture_are_refused(tmp_path):
    (tmp_path / "shards.json").write_text('{"shards": {"a.tar": "many"}}')
    with pytest.raises(ValueError, match='shards.json is damaged .*shards.a.tar is "many", not a whole number'):
        shards.counts(tmp_path)
    for text in (DEEP, f'{{"sources": [{{"shards": "a", "weight": {HUGE}}}]}}', '{"sources": [{"shards": "a", "weight": NaN}]}'):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(ValueError, match="m.json: not a mixture"):
            Mixture.load(tmp_path / "m.json")


def test_one_bad_number_costs_no_conversation_and_no_canvas():
    turn = f'{{"id": "a", "role": "user", "text": "hello", "seed": {HUGE}, "pictures": []}}'
    read = parse_transcript(f'{{"head": "a", "turns": [{turn}]}}')
    assert read.turns[0].text == "hello" and read.seed == 0
    good = '{"ref": 1, "x": 0, "y": 0, "width": 0.5, "height": 0.5}'
    found = parse_placement(f'{{"boxes": [{good}, {{"ref": 2, "x": 1e400, "y": 0, "width": 0.5, "height": 0.5}}]}}')
    assert len(found.boxes) == 1 and "box 2" in found.ignored[0]
    assert parse_transcript(DEEP).turns[0].text.startswith("[[[") and parse_placement(DEEP).ignored


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_caption_of_windows_is_read(tmp_path, mark):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("a fox é\r\n".encode(mark))
    (sample,) = PictureFolder(tmp_path).samples(0, 0, 1, 1)
    assert sample.turns[0].text == "a fox é"
