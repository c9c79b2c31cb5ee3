"""WeGen Chat Panel and the canvas of Bbox Compose: the values of the two editors as the nodes read them."""

import dataclasses
import json

import pytest
import torch
from wegen.nodes import ui_messages
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture
from wegen.wegen_model.chat import chat_state as T
from wegen.wegen_model.chat.canvas_state import choose, digest, parse_placement
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.features import mosaic
from wegen.wegen_model.generation.generate import written
from wegen.wegen_model.progress import ProgressEvent

FILE = {"filename": "a.png", "subfolder": "wegen", "type": "output"}


def turn(k, role, parent=None, **more):
    return {"id": f"t{k}", "parent": parent, "role": role, "text": f"text {k}", **more}


def tree():
    return {
        "version": 1,
        "head": "t4",
        "turns": [
            turn(1, "user", seed=1),
            turn(2, "assistant", "t1", pictures=[FILE], seed=1),
            turn(3, "user", "t2", seed=3),
            turn(4, "assistant", "t3", seed=9),
            turn(5, "user", "t2", seed=5),
        ],
    }


def test_the_path_of_the_head_counts_and_a_given_answer_is_asked_again_with_its_seed():
    read = T.parse_transcript(json.dumps(tree()))
    assert [s.text for s in read.turns] == ["text 1", "text 2", "text 3"] and (read.seed, read.id) == (9, "t3")
    other = T.parse_transcript(json.dumps({**tree(), "head": "t5"}))
    assert [s.text for s in other.turns] == ["text 1", "text 2", "text 5"] and other.seed == 5 and not other.ignored


def test_plain_text_is_one_message_and_a_list_is_a_conversation():
    assert [s.text for s in T.parse_transcript("a fox").turns] == ["a fox"]
    assert [s.role for s in T.parse_transcript(json.dumps([turn(1, "user"), turn(2, "assistant"), turn(3, "user")])).turns] == [
        "user",
        "assistant",
        "user",
    ]


@pytest.mark.parametrize(
    "file",
    [
        {**FILE, "filename": "../a.png"},
        {**FILE, "subfolder": "../../etc"},
        {**FILE, "subfolder": "/etc"},
        {**FILE, "type": "models"},
        {**FILE, "filename": "C:a.png"},
        {**FILE, "filename": ""},
        {**FILE, "filename": 7},
        {**FILE, "subfolder": "a\\..\\b"},
        "a.png",
        None,
    ],
)
def test_pictures_stay_inside_their_folders(file):
    read = T.parse_transcript(json.dumps([turn(1, "user", pictures=[file, FILE])]))
    assert [f["filename"] for f in read.turns[0].pictures] == ["a.png"] and len(read.ignored) == 1


def test_a_hostile_transcript_is_read_without_raising():
    loop = {"head": "b", "turns": [turn(1, "user", "b", id="a"), turn(2, "assistant", "a", id="b")]}
    assert len(T.parse_transcript(json.dumps(loop)).turns) == 1
    odd = [
        7,
        None,
        turn(1, "system"),
        turn(2, "assistant"),
        {**turn(3, "user", seed=-1, boxes=3, pictures={}), "text": "x" * 10**6},
        turn(4, "user", seed=1e9),
    ]
    read = T.parse_transcript(json.dumps(odd))
    assert len(read.turns) == 1 and read.turns[0].text == "text 4" and len(read.ignored) == 4 + (len(read.ignored) > 4)
    many = [turn(k, "user" if k % 2 else "assistant") for k in range(1, 20001)]
    assert len(T.parse_transcript(json.dumps(many)).turns) <= T.TURNS
    for text in ("[" * 100000, "{}", "[]", '{"turns": 5}', "null"):
        T.parse_transcript(text)


def test_the_panel_says_what_is_missing(model):
    with pytest.raises(ValueError, match="Write a message in the panel"):
        call("WeGenChatPanel", model=model, transcript="")
    with pytest.raises(ValueError, match="turn 1: the picture «wegen/a.png»"):
        call("WeGenChatPanel", model=model, transcript=json.dumps([turn(1, "user", pictures=[FILE])]))


def test_the_panel_does_what_the_three_nodes_do(model):
    (image, features, talk, reply), _ = call("WeGenChatPanel", model=model, transcript="a cat", picture="always", max_tokens=4)
    (asked, *_), _ = call("WeGenChat", model=model, message="a cat", picture="always", max_tokens=4)
    (same, after), _ = call("WeGenDraw", model=model, chat=asked)
    (painted,), _ = call("WeGenDecode", features=same, decoder=model)
    assert torch.equal(image, painted) and torch.equal(features.tokens, same.tokens) and talk.turns[-1].ids == after.turns[-1].ids


def test_earlier_pictures_are_encoded_anew_and_words_alone_give_no_picture(model, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "output" / "wegen").mkdir(parents=True)
    Image.new("RGB", (20, 20), "red").save(tmp_path / "output" / "wegen" / "a.png")
    rows = [
        turn(1, "user"),
        {**turn(2, "assistant", pictures=[FILE]), "text": "here <image_1> <bbox_9>"},
        {**turn(3, "user", pictures=[FILE]), "text": "and <image_1>"},
    ]
    (image, features, talk, _), _ = call("WeGenChatPanel", model=model, transcript=json.dumps(rows), picture="never", max_tokens=3)
    assert image is None and features is None and [t.role for t in talk.turns] == ["user", "assistant"] * 2
    expected = model.encode(torch.tensor([1.0, 0, 0]).expand(1, 20, 20, 3))
    assert torch.equal(talk.turns[1].written(0).tokens, expected.tokens) and talk.turns[1].text == "here  "


def test_commands_stand_in_the_transcript_and_are_followed_again(tmp_path, monkeypatch):
    """undo, again and the n-th picture: what the panel keeps are the words as typed and the answers as shown."""
    from PIL import Image
    from wegen.nodes.load import WeGenLoadModel
    from wegen.nodes.panel import WeGenChatPanel
    from wegen.tests.support import tiny_model

    model = WeGenLoadModel().load(str(tiny_model(tmp_path / "short", memory=1)))[0]
    monkeypatch.chdir(tmp_path)
    for name, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / "output" / "wegen").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), colour).save(tmp_path / "output" / "wegen" / f"{name}.png")
    blue = {**FILE, "filename": "b.png"}

    def said(*rows):
        words = [{"role": "user" if i % 2 == 0 else "assistant", "text": t, "pictures": p} for i, (t, p) in enumerate(rows)]
        made = WeGenChatPanel().answer(model, "always", max_tokens=3, transcript=json.dumps(words))
        return made["result"], made["ui"]["wegen_chat"][0]

    begun = [("a fox", []), ("", [FILE]), ("now blue", []), ("", [blue])]
    (image, features, talk, reply), message = said(*begun, ("Undo!", []))
    assert image[0, 0, 0].tolist() == [1, 0, 0] and "Taken back" in reply and message["text"] == reply
    assert message["pictures"][0]["filename"] == "a.png" and len(message["cells"]) == 64 and len(talk.turns) == 2
    assert torch.equal(features.tokens, model.encode(image).tokens)
    undone = [*begun, ("Undo!", []), (reply, [FILE])]
    (_, on, talk, _), _ = said(*undone, ("bigger", []))
    (_, plain, _, _), _ = said(*begun[:2], ("bigger", []))
    assert torch.equal(on.tokens, plain.tokens) and [t.text for t in talk.turns][::2] == ["a fox", "bigger"]
    (image, _, talk, reply), _ = said(*undone, ("the second one", []))
    assert image[0, 0].tolist() == [[0, 0, 1]] * 20 and "Picture 2" in reply and len(talk.turns) == 4
    (image, _, talk, _), _ = said(*begun, ("again", []), ("", [FILE]), ("again", []))  # the second answer was red
    assert image is not None and [t.text for t in talk.turns][::2] == ["a fox", "now blue"] and len(talk.drawn) == 4
    (image, _, talk, reply), message = said(*begun, ("picture 3", []))
    assert (
        reply == message["text"] == "There is no picture 3: 2 were drawn in this conversation." and image is None and len(talk.turns) == 4
    )
    assert said(("Undo", []))[1]["text"] == "There is nothing to take back: nothing was said yet."
    (_, _, talk, _), _ = said(*begun, ("picture 3", []), ("?", []), ("undo", []))
    assert [t.text for t in talk.turns][::2] == ["a fox"], "what could not be followed is passed over"


def features_event(k):
    """k of 64 features are written."""
    return written([torch.randn(8) for _ in range(k)], 64, (8, 8))


def test_the_teller_speaks_in_stages_and_not_too_often(monkeypatch):
    sent = []
    monkeypatch.setattr(ui_messages, "send", lambda event, data: sent.append((event, data)))
    listen = ui_messages.chat_progress("t1")
    for i in range(1, 65):
        listen(features_event(i))
    assert 1 < len(sent) < 64 and sent[-1][0] == "wegen.chat" and len(sent[-1][1]["cells"]) == 64 and sent[-1][1]["turn"] == "t1"
    listen(ProgressEvent("denoise", 1, 1, preview=lambda: torch.rand(16, 16, 3)))
    assert sent[-1][1]["kind"] == "paint" and sent[-1][1]["picture"].startswith("data:image/jpeg;base64,")


def test_the_grid_below_a_node_fills_while_features_are_written(monkeypatch):
    sent = []
    monkeypatch.setattr(ui_messages, "send", lambda event, data: sent.append((event, data)))
    monkeypatch.setattr(ui_messages.host, "executing_node", lambda: "7:3")
    listen = ui_messages.grid_progress()
    listen(ProgressEvent("read_prompt", 1, 3))
    assert not sent, "reading the prompt shows nothing"
    for i in range(1, 65):
        listen(features_event(i))
    counts = [len(data["cells"]) for _, data in sent]
    assert counts == sorted(set(counts)) and 1 < len(counts) < 64 and counts[-1] == 64
    assert {event for event, _ in sent} == {"wegen.features"} and {(data["node"], data["n"]) for _, data in sent} == {("7:3", 64)}


def test_the_last_words_come_with_the_first_feature(monkeypatch):
    """Words that fell between two messages are not held back until the answer is finished."""
    sent = []
    monkeypatch.setattr(ui_messages, "send", lambda event, data: sent.append(data))
    listen = ui_messages.chat_progress("t1")
    for i, text in enumerate(("a", "a fox", "a fox on"), 1):
        listen(ProgressEvent("write_text", i, 128, text=text))
    listen(features_event(1))
    assert [m.get("text") for m in sent] == ["a", "a fox on"]
    listen(features_event(64))
    assert "text" not in sent[-1], "words are sent once"


def test_colours_are_those_of_the_features_and_not_read_from_a_preview(monkeypatch):
    sent = []
    monkeypatch.setattr(ui_messages, "send", lambda event, data: sent.append(data))
    event = features_event(64)
    assert event.cells().shape == (64, 3) and torch.equal(event.preview()[::16, ::16].reshape(64, 3), event.cells())
    ui_messages.chat_progress("t1")(dataclasses.replace(event, preview=None, label="in another language"))
    assert sent[0]["cells"] == ui_messages.hexes(event.cells()) and sent[0]["kind"] == "features" and "picture" not in sent[0]


def test_like_features_have_like_colours():
    x = torch.randn(64, 32)
    x[10] = x[3]
    picture = mosaic(x, (8, 8)).reshape(64, 3)
    assert torch.equal(picture[10], picture[3]) and picture.std() > 0.1 and 0 <= picture.min() and picture.max() <= 1
    assert mosaic(x[:5], (8, 8), 2).shape == (16, 16, 3) and len(set(map(tuple, mosaic(x[:5], (8, 8)).reshape(64, 3)[5:].tolist()))) == 1


# ---- the canvas

SIDES = {"x": 0.1, "y": 0.2, "width": 0.4, "height": 0.5}


def test_a_persons_boxes_win_until_what_arrives_changes():
    arrived = (Box(0.5, 0.5, 0.25, 0.25),)
    drawn = parse_placement(json.dumps({"boxes": [{"ref": 1, **SIDES}], "seen": digest(arrived)}))
    assert choose(drawn, arrived) == (drawn.boxes, True)
    assert choose(drawn, ()) == (drawn.boxes, True)
    assert choose(drawn, (Box(0.5, 0.5, 0.25, 0.3),))[1] is False
    assert choose(parse_placement(""), arrived) == (arrived, False)


def test_the_canvas_places_the_references():
    canvas = json.dumps({"boxes": [{"ref": 2, **SIDES, "label": "panda"}]})
    (references, _, boxes, *_), shown = call("WeGenBboxCompose", canvas=canvas, image_1=picture(), image_2=picture(), width=200, height=100)
    assert [r.box for r in references] == [None, Box(0.1, 0.2, 0.4, 0.5)]
    assert boxes == [[{"x": 20, "y": 20, "width": 80, "height": 50, "label": "panda"}]]
    assert shown == []


def test_text_counts_when_it_changed_after_the_drawing():
    canvas = json.dumps({"boxes": [{"ref": 1, **SIDES}], "seen": "1:1,1,1,1"})
    (references, *_), _ = call("WeGenBboxCompose", canvas=canvas, box_text="0.5 0.5 0.5 0.5", image_1=picture())
    assert references[0].box == Box(0.5, 0.5, 0.5, 0.5)


def test_a_hostile_canvas_is_read_for_what_it_is():
    rows = [
        {"ref": 1, **SIDES, "label": "<script>"},
        {"ref": 2, **SIDES, "width": -1},
        {"ref": 1, **SIDES},
        {"ref": "x"},
        5,
        {"ref": 3, **SIDES, "x": float("nan")},
        {"ref": 4, "x": -1, "y": -1, "width": 9, "height": 9},
    ]
    read = parse_placement(json.dumps({"boxes": rows + [{"ref": k, **SIDES} for k in range(5, 10005)], "evil": 1}))
    assert read.boxes[0] == Box(**SIDES) and read.labels[0] == "<script>" and read.boxes[1:4] == (None, None, Box(0, 0, 1, 1))
    assert len(read.boxes) == 97 and len(read.ignored) == 4
    for text in ("{", "[" * 100000, "5", '{"boxes": 3}', None):
        assert parse_placement(text).boxes == ()
    _, shown = call("WeGenBboxCompose", canvas="{")
    assert shown == ["Note: Left out: the canvas holds no readable boxes, so it counts as empty."]


def test_the_picture_that_a_message_changes():
    """As js/chat/transcript.js: its only one without a box, or that of the answer before."""
    box = {"x": 0, "y": 0, "width": 0.5, "height": 0.5}
    other = {**FILE, "filename": "b.png"}

    def original(*rows):
        found = T.parse_transcript(json.dumps(list(rows))).original
        return found and (found[0]["filename"], found[1])

    first, answer = turn(1, "user"), turn(2, "assistant", pictures=[other])
    assert original(first, answer, turn(3, "user", pictures=[FILE])) == ("a.png", "turn 3")
    assert original(first, answer, turn(3, "user")) == ("b.png", "turn 2")
    assert original(first, answer, turn(3, "user", pictures=[FILE, other])) is None
    assert original(first, answer, turn(3, "user", pictures=[{**FILE, "box": box}])) is None
    assert original(first) is None and original(first, turn(2, "assistant"), turn(3, "user")) is None
    assert T.parse_transcript("").original is None


def test_the_panel_leaves_the_rest_alone_when_told_to(model, tmp_path, monkeypatch):
    """Off: as ever. On: what does not change is the answer's picture before, to the bit; a new picture is painted as ever."""
    from PIL import Image
    from wegen.wegen_model.images import read_float

    monkeypatch.chdir(tmp_path)
    (tmp_path / "output" / "wegen").mkdir(parents=True)
    path = tmp_path / "output" / "wegen" / "a.png"
    Image.effect_noise((40, 30), 90).convert("RGB").save(path)
    rows = json.dumps([turn(1, "user"), turn(2, "assistant", pictures=[FILE]), turn(3, "user", seed=4)])
    mask = torch.zeros(1, 32, 32)
    mask[:, :16] = 1
    monkeypatch.setattr(model.painter, "change_mask", lambda *a, **k: mask)
    ask = {"model": model, "picture": "always", "max_tokens": 4}
    kept = call("WeGenChatPanel", transcript=rows, keep_rest=True, **ask)[0][0]
    before = read_float(path)
    assert torch.equal(kept[:, 15:], before[:, 15:]) and not torch.equal(kept[:, :15], before[:, :15])
    off = call("WeGenChatPanel", transcript=rows, **ask)[0][0]
    assert off.shape == (1, 32, 32, 3)
    new = call("WeGenChatPanel", transcript="a cat", keep_rest=True, **ask)[0][0]
    assert torch.equal(new, call("WeGenChatPanel", transcript="a cat", **ask)[0][0])


def shown(model, **inputs):
    """The panel's messages to the browser, and its pictures; each file is named by the number of its picture."""
    from wegen.nodes.panel import WeGenChatPanel

    answer = WeGenChatPanel().answer(model, picture="always", max_tokens=4, **inputs)
    return answer["ui"]["wegen_chat"], answer["result"][0]


@pytest.mark.parametrize("seed", [7, 2**53 - 1, 2**64 - 1])
def test_several_pictures_of_one_answer_are_those_of_their_seeds(model, monkeypatch, seed):
    """Each with the words of the first; the message to the browser says so. The conversation is read and written once."""
    monkeypatch.setattr(ui_messages, "save_picture", lambda image, *_: {**FILE, "filename": f"{image.sum():.4f}.png"})
    drawn, draw = [], model.draw
    monkeypatch.setattr(model, "draw", lambda *a, **k: drawn.append(1) or draw(*a, **k))
    messages, image = shown(model, transcript=json.dumps([turn(1, "user", seed=seed)]), variations=3)
    assert len(image) == 3 and drawn == [1]
    seeds = [(seed + k) % 2**64 for k in range(3)]
    assert [int(m["seed"]) for m in messages] == seeds and all(isinstance(m["seed"], str) == (int(m["seed"]) >= 2**53) for m in messages)
    assert [int(m.get("first", m["seed"])) for m in messages] == [seed] * 3 and "first" not in messages[0]
    assert len({m["pictures"][0]["filename"] for m in messages}) == 3 and len({m["text"] for m in messages}) == 1
    for k, message in enumerate(messages):  # chosen, each comes alone and as it was, whatever the widget says
        row = {key: message[key] for key in ("seed", "first") if key in message}
        if "first" in row:
            (again,), alone = shown(model, transcript=json.dumps([turn(1, "user", **row)]), variations=3)
            assert len(alone) == 1 and (again["seed"], again["first"], again["text"]) == (row["seed"], row["first"], message["text"])
            assert torch.allclose(alone[0], image[k], atol=1e-4)
    assert torch.allclose(image[:1], shown(model, transcript=json.dumps([turn(1, "user", seed=seed)]))[1], atol=1e-4)


def test_words_alone_have_no_variations(model):
    from wegen.nodes.panel import WeGenChatPanel

    answer = WeGenChatPanel().answer(model, picture="never", max_tokens=3, transcript="hello", variations=4)
    assert len(answer["ui"]["wegen_chat"]) == 1 and answer["ui"]["wegen_chat"][0]["pictures"] == []
