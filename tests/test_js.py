"""The browser code's modules without DOM (js/boxes, js/chat), by node's own test runner; both readers of a value agree."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from wegen.nodes import sockets
from wegen.wegen_model.chat import canvas_state, chat_state
from wegen.wegen_model.chat.box_forms import parse_boxes
from wegen.wegen_model.chat.boxes import COLOURS
from wegen.wegen_model.chat.canvas_state import digest, parse_placement
from wegen.wegen_model.chat.chat_state import parse_transcript
from wegen.wegen_model.chat.conversation import Turn

TESTS = Path(__file__).parent / "js"
NODE = shutil.which("node")
need_node = pytest.mark.skipif(NODE is None, reason="needs node (18 or later) on the PATH for the tests of js/: it was not found")


def evaluate(code: str, given=None):
    """JSON that an ES module in tests/js would print; it finds `given` as a constant of this name."""
    code = f"import {{readFileSync}} from 'node:fs'; const given = JSON.parse(readFileSync(0, 'utf8'));{code}"
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", code], cwd=TESTS, input=json.dumps(given), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@need_node
@pytest.mark.parametrize("path", sorted(TESTS.glob("*.test.mjs")), ids=lambda p: p.name)
def test_modules_without_dom(path):
    done = subprocess.run([NODE, "--test", str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "\n# fail 0" in done.stdout and "\n# pass 0" not in done.stdout


@need_node
def test_both_sides_make_the_same_digest():
    text = "0.05 0.3 0.4 0.6\n\n0.33333 0.1 0.66667 0.2"
    code = "import {readText} from '../../js/boxes/reading.js'; import {digest} from '../../js/boxes/state.js';"
    there = evaluate(f"{code} process.stdout.write(JSON.stringify(digest(readText({json.dumps(text)}, 1024, 1024))))")
    assert there == digest(parse_boxes(text, 1024, 1024)) == "1:500,3000,4000,6000;3:3333,1000,6667,2000"


@need_node
def test_the_server_reads_what_the_canvas_writes():
    code = (
        "import * as S from '../../js/boxes/state.js';"
        "const a = S.add(S.parse(''), {x: .1, y: .2, width: .3, height: .4, label: '\u0436'}, [2]);"
    )
    text = evaluate(f"{code} process.stdout.write(JSON.stringify(S.serialise(a.state)))")
    read = parse_placement(text)
    assert read.labels == ("", "\u0436") and read.boxes[0] is None and read.boxes[1].width == pytest.approx(0.3) and not read.ignored


@need_node
def test_both_sides_read_the_same_tags():
    text = "<image_1> <Image_2> <IMAGE_12>, <Bbox_1> <bBOX_3><image_> < image_1> <\u0131mage_1> <\u0130mage_1> <picture_1>"
    code = "import {TAG} from '../../js/chat/transcript.js';"
    there = evaluate(f"{code} process.stdout.write(JSON.stringify([...given.matchAll(TAG)].map((m) => [m[1].toLowerCase(), +m[2]])))", text)
    assert [tuple(tag) for tag in there] == Turn("user", text).tags() and len(there) == 5


@need_node
def test_limits_are_the_same_on_both_sides():
    code = (
        "import {LIMITS} from '../../js/chat/transcript.js'; import {MOST, LABEL, PLACES} from '../../js/boxes/state.js';"
        "process.stdout.write(JSON.stringify({LIMITS, MOST, LABEL, PLACES}))"
    )
    c = chat_state
    assert evaluate(code) == {
        "LIMITS": {"turns": c.TURNS, "text": c.TEXT, "pictures": c.PICTURES, "boxes": c.BOXES, "label": c.LABEL, "id": c.ID},
        "MOST": canvas_state.MOST,
        "LABEL": canvas_state.LABEL,
        "PLACES": list(c.PLACES),
    }


def test_colours_and_sockets_are_the_same_on_both_sides():
    """Without node: both are plain in the scripts' text."""
    js = TESTS.parent.parent / "js"
    css = (js / "wegen.css").read_text(encoding="utf8")
    found = re.findall(r"--c(\d): ?(#[0-9a-f]{6}|rgb\([^)]*\))", css)
    darker = {"4": "#d4a00c"}  # meant: in the browser a white number stands on the fifth, which it would not be readable on
    assert dict(found) == {str(i): "#%02x%02x%02x" % colour for i, colour in enumerate(COLOURS)} | darker
    for path in js.rglob("*.js"):
        assert set(re.findall(r"colour-\$\{[^}]*% (\d+)\}", path.read_text(encoding="utf8"))) <= {str(len(COLOURS))}, path.name
    slots = re.search(r"const SLOTS = \[([^\]]*)\]", (js / "boxes" / "widget.js").read_text(encoding="utf8"))[1]
    assert tuple(f"image_{k.strip()}" for k in slots.split(",")) == sockets.SLOTS


@need_node
def test_the_size_of_a_large_picture_is_said_with_the_decoder_s_own_figures():
    from types import SimpleNamespace

    from wegen.wegen_model.models.decoder import Decoder

    code = "import {cost, gib} from '../../js/size.js'; process.stdout.write(JSON.stringify(given.map((a) => [gib(...a), cost(...a)])))"
    unet = SimpleNamespace(unet=SimpleNamespace(config=SimpleNamespace(block_out_channels=(320,))))
    vae = SimpleNamespace(vae=SimpleNamespace(config={"block_out_channels": [128]}))
    sizes = [(1024, 1024, 1), (8192, 8192, 1), (4096, 2048, 60)]
    for (width, height, rows), (said, text) in zip(sizes, evaluate(code, sizes), strict=True):
        needs = Decoder.sampling_bytes(unet, 2 * rows, height // 8, width // 8, 2), Decoder.painting_bytes(vae, height, width, 2)
        assert said == pytest.approx(max(needs) / 2**30, rel=1e-6)
        assert (f"about {round(said)} GiB" in text) == (width * height > 2048**2)


PICTURES = (
    {"filename": "a.png", "subfolder": "wegen", "type": "output"},
    {"filename": "b.png", "subfolder": None, "type": "input", "label": "\U0001f98a" * 120},
    {"filename": "c.png", "type": "temp", "label": "", "box": {"x": 0, "y": 0.25, "width": 0.5, "height": 0.75}},
    {"filename": "d.png", "subfolder": 0, "type": "temp", "label": 7},
    {"filename": "\u732b" * 300, "subfolder": "\U0001f431" * 199, "type": "input"},
    {"filename": "../e.png", "type": "input"},
    {"filename": "f\0.png", "type": "input"},
    {"filename": "g.png", "subfolder": "a/../b", "type": "input"},
    {"filename": "h.png", "type": "models"},
    "i.png",
    None,
)
BOXES = (
    {"x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4},
    {"x": -1e-7, "y": 0, "width": 1, "height": 1.00005},
    {"x": 0, "y": 0, "width": 0, "height": 1},
    {"x": True, "y": 0, "width": 1, "height": 1},
    {"x": 0.9, "y": 0, "width": 0.2, "height": 1},
    [0, 0, 1, 1],
    None,
)
SEEDS = (
    0,
    7,
    7.0,
    -1,
    1.5,
    True,
    None,
    "12",
    "x",
    2**32,
    2**53 - 1,
    2**53 + 1,
    2**60,
    2**60 + 1,
    2**64 - 1,
    2**64,
    1e17,
    10**16,
    "9007199254740993",
)


def stored_transcript(rng: random.Random) -> object:
    """A value as a workflow may hold it: mostly a tree as the panel writes it, with a few of the ways in which files go wrong."""
    ids = [f"t{k}" for k in range(rng.randint(0, 8))]
    rows: list[object] = []
    for k, name in enumerate(ids):
        parent = rng.choice([None, *ids[:k][-2:]]) if k else None
        row = {"id": name, "parent": parent, "role": "user" if k % 2 == 0 else "assistant", "text": f"say {k}", "seed": rng.choice(SEEDS)}
        if rng.random() < 0.3:
            row["pictures"] = rng.sample(PICTURES, rng.randint(0, len(PICTURES)))
        if rng.random() < 0.2:
            row["first"] = rng.choice([*SEEDS, [], row["seed"]])
        if rng.random() < 0.3:
            row["boxes"] = rng.sample(BOXES, rng.randint(0, len(BOXES)))
        if rng.random() < 0.25:
            row |= rng.choice(
                [
                    {"role": "user"},
                    {"role": "assistant"},
                    {"role": "system"},
                    {"text": ""},
                    {"text": "\U0001f98a" * 20001, "pictures": []},
                    {"text": 5},
                    {"parent": rng.choice(ids)},  # perhaps itself, a later one, or a circle
                    {"parent": "nowhere"},
                    {"id": rng.choice(ids)},
                    {"id": "x" * 70 + name},
                    {"id": rng.choice(["", None, 5])},
                    {"pictures": 3, "boxes": {}},
                ]
            )
        rows.append(row)
    if rng.random() < 0.1:
        rows.insert(rng.randint(0, len(rows)), rng.choice([None, 5, "x", [], {}]))
    if rng.random() < 0.1:
        rng.shuffle(rows)
    if rng.random() < 0.2:
        return rows
    head = rng.choice([*ids, *ids, *ids, None, "nowhere", 5]) if ids else None
    return {"version": 1, "turns": rows, **({} if rng.random() < 0.1 else {"head": head})}


@need_node
def test_both_readers_of_a_transcript_take_the_same_path():
    """What the browser makes of a stored value and sends is what Python reads in the value itself."""
    rng = random.Random(15)
    values = [json.dumps(stored_transcript(rng)) for _ in range(1500)]
    values += [
        "a fox",
        " 12 ",
        '"x"',
        "{}",
        "[]",
        '{"turns": 3}',
        "[" * 50,
        json.dumps({"a": 'x "seed": 12345678901234567 y'}),
        "\U0001f98a" * 20001,
    ]
    code = (
        "import * as T from '../../js/chat/transcript.js';"
        "process.stdout.write(JSON.stringify(given.map((text) => { const talk = T.parse(text), kept = T.parse(T.serialise(talk));"
        "return [T.forPrompt(talk), T.forPrompt(kept)]; })))"
    )
    differ = {}
    for text, (sent, sent_later) in zip(values, evaluate(code, values), strict=True):
        here = parse_transcript(text)
        for there in (parse_transcript(sent), parse_transcript(sent_later)):
            said = [[(s.role, s.text, s.pictures, s.places, s.boxes) for s in side.turns] for side in (here, there)]
            if said[0] != said[1] or (here.seed, here.first) != (there.seed, there.first):
                differ[text[:2000]] = (here, there)
    assert len(differ) == 0, next(iter(differ.items()))


@need_node
def test_a_seed_of_64_bits_is_kept_and_its_answer_found():
    code = (
        "import * as T from '../../js/chat/transcript.js'; const talk = T.parse(given), asked = talk.head;"
        "const told = T.answer(talk, asked, {text: 'yes', pictures: [], seed: '1152921504606846977'});"
        "const again = T.answer(told, asked, {text: 'yes', pictures: [], seed: '1152921504606846977'});"
        "process.stdout.write(JSON.stringify([T.serialise(again), T.forPrompt(again), again.turns.length]))"
    )
    text = json.dumps({"head": "a", "turns": [{"id": "a", "role": "user", "text": 'say "seed": 12345678901234567,', "seed": 2**60 + 1}]})
    kept, sent, turns = evaluate(code, text)
    assert turns == 2 and [parse_transcript(t).seed for t in (text, kept, sent)] == [2**60 + 1] * 3
    assert parse_transcript(sent).turns[0].text == 'say "seed": 12345678901234567,'


@need_node
def test_both_readers_of_the_canvas_see_the_same_boxes():
    rng = random.Random(15)
    values = []
    for _ in range(500):
        rows: list[object] = [
            {
                "ref": rng.choice([1, 2, 3, 3.0, 4, 100, 101, 0, "1", True]),
                **{side: rng.choice([0, 0.1, 0.25, 0.5, 0.75, 1, 1.5, -0.2, None, "0", True]) for side in ("x", "y", "width", "height")},
                "label": rng.choice(["", " panda ", "\U0001f43c" * 120, 5]),
            }
            for _ in range(rng.randint(0, 6))
        ]
        values.append(json.dumps(rng.choice([rows, {"version": 1, "boxes": rows, "seen": "1:0,0,1,1"}, {"boxes": 3}])))
    code = "import * as S from '../../js/boxes/state.js'; process.stdout.write(JSON.stringify(given.map((t) => S.parse(t))))"
    for text, there in zip(values, evaluate(code, values), strict=True):
        here = parse_placement(text)
        boxes = {k: (b, label) for k, (b, label) in enumerate(zip(here.boxes, here.labels, strict=True), 1) if b}
        assert list(boxes) == [b["ref"] for b in there["boxes"]] and here.seen == there["seen"], text
        for b in there["boxes"]:
            box, label = boxes[b["ref"]]
            assert (box.x, box.y, box.width, box.height) == pytest.approx([b[s] for s in ("x", "y", "width", "height")], abs=2e-5), text
            assert label == b["label"], text
