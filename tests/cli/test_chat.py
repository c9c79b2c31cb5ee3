"""`wegen chat` as people use it: files that were dropped, commands, saved conversations, and turns that end early."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wegen.tests.support import tiny_model
from wegen.wegen_model.cli.chat import path_of
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.pipeline import WeGen


@pytest.fixture
def talk(tmp_path, monkeypatch, capsys):
    """Runs a conversation of typed lines; returns its exit code, standard output and standard error."""

    def run(*lines, out="out", options=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
        code = main(["chat", "--out", str(tmp_path / out), *options])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def cat(tmp_path):
    folder = tmp_path / "my pictures"
    folder.mkdir()
    Image.new("RGB", (20, 20), "red").save(folder / "my cat.png")
    return folder / "my cat.png"


@pytest.mark.parametrize("typed", ["{}", " {}  ", "'{}'", '"{}"', "{escaped}", "{uri}", "FILE://localhost{quoted}", "{home}", "'{home}'"])
def test_a_file_is_found_as_it_is_typed_or_dropped(cat, typed, monkeypatch):
    monkeypatch.setenv("HOME", str(cat.parent))
    typed = typed.format(cat, escaped=str(cat).replace(" ", "\\ "), uri=cat.as_uri(), quoted=cat.as_uri()[7:], home="~/my cat.png")
    assert path_of(typed) == cat


def test_a_path_with_a_backslash_that_is_there_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a\\b.png").write_text("")
    assert path_of("a\\b.png") == Path("a\\b.png") and path_of("no\\where") == Path("nowhere") and path_of("it's") == Path("it's")


def test_what_cannot_be_attached_or_is_no_command_is_said_and_nothing_is_sent(talk, cat, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("hello")
    monkeypatch.setattr(WeGen, "chat", lambda *_, **__: pytest.fail("nothing was said"))
    code, out, err = talk(
        f"/image {tmp_path}", f"/image {tmp_path / 'no.png'}", f"/image {tmp_path / 'a.txt'}", "/image", "", "   ", "/imagine a fox",
        "/picture one", "/picture 1", "/undo", "/again", "/save", "/help", f"/image {cat}", "/quit",
    )  # fmt: skip
    assert code == 0
    for words in (
        "it is a folder", "there is no picture", "it is not a picture", "write /image and", "there is no /imagine", "write /picture and",
        "there is no picture 1: none was drawn", "nothing to take back", "nothing to repeat", "nothing to save", "attached as <image_1>",
        "--load FILE",
    ):  # fmt: skip
        assert words in err, words


def test_a_talk_goes_back_and_on_in_words_and_in_commands(talk, tmp_path):
    said = ("a fox on a teal background", "make the background red", "Undo.", "the second picture", "/undo", "/picture 2", "/again")
    code, out, err = talk(*said, "/quit")
    pictures = [line.partition("picture: ")[2].rstrip("]") for line in out.splitlines() if "[picture:" in line]
    assert code == 0 and [Path(p).stem for p in pictures] == [f"chat_00{n}" for n in (1, 2, 1, 2, 1, 2, 3)]
    assert "Taken back. You last said «a fox on a teal background»." in out and "Picture 2 again: «make the background red»." in out
    one, two, again = (np.array(Image.open(tmp_path / "out" / f"chat_00{n}.png")).astype(int) for n in (1, 2, 3))
    assert one[4, 4, 1] > one[4, 4, 0] and two[4, 4, 0] > two[4, 4, 1] and again[4, 4, 0] > again[4, 4, 1]
    assert np.abs(again - two).max() > 0, "another seed"


def test_a_conversation_is_saved_and_goes_on(talk, tmp_path):
    saved = tmp_path / "fox.safetensors"
    code, out, err = talk("a fox on a teal background", f"/save '{saved}'", f"/save {saved}", "make the background red", "/quit")
    assert code == 0 and err.count(f"saved: {saved}") == 2
    code, out, err = talk("make the background red", "/undo", "/save", "/quit", out="on", options=("--load", str(saved)))
    assert code == 0 and "1 messages, 1 pictures" in err and "you> a fox on a teal background" in err
    went_on, at_once = Image.open(tmp_path / "on" / "chat_001.png"), Image.open(tmp_path / "out" / "chat_002.png")
    assert np.array_equal(np.array(went_on), np.array(at_once))
    assert (tmp_path / "on" / "talk_001.safetensors").is_file()


def test_save_writes_over_no_file_that_is_not_its_own(talk, cat, tmp_path):
    before = cat.read_bytes()
    code, out, err = talk("a fox", f"/save {cat}", f"/save {tmp_path}", "/quit")
    assert code == 0 and err.count("is there already: choose another name") == 2 and cat.read_bytes() == before


def test_a_conversation_that_cannot_be_loaded_is_said(talk, tmp_path):
    (tmp_path / "bad").write_text("{}")
    for name, words in (("bad", "holds no conversation, or a damaged one"), ("no", "no"), (".", "is a folder")):
        code, _, err = talk("/quit", options=("--load", str(tmp_path / name)))
        assert code == 2 and words in err
    saved = tmp_path / "fox.safetensors"
    talk("a fox", f"/save {saved}", "/quit")
    other = tiny_model(tmp_path / "other", parts=("language", "projectors"))
    code, _, err = talk("/quit", options=("--load", str(saved), "--model", str(other)))
    assert code == 2 and "held with another model" in err


def test_ctrl_c_gives_up_a_turn_and_twice_at_the_prompt_ends(talk, cat, tmp_path, monkeypatch, capsys):
    draw, stop = WeGen.draw, [False, True, False]

    def drawing(self, *args, **more):
        if stop.pop(0):
            raise KeyboardInterrupt
        return draw(self, *args, **more)

    monkeypatch.setattr(WeGen, "draw", drawing)
    typed = iter(["a fox on teal", f"/image {cat}", "now on red", None, "/save", "<image_1> on blue", None, None])

    def line(_):
        words = next(typed)
        if words is None:
            raise KeyboardInterrupt
        return words

    monkeypatch.setattr("builtins.input", line)
    assert main(["chat", "--out", str(tmp_path / "out")]) == 130
    said = capsys.readouterr()
    assert "Stopped. That turn was given up" in said.err and said.err.count("Ctrl-C once more") == 2
    assert "saved: " in said.err and "1 attached, not yet sent" in said.err, "what was attached is still there"
    assert len(list((tmp_path / "out").glob("chat_*.png"))) == 2


@pytest.mark.parametrize(
    "words", ["word " * 500, "?!", "лиса", "キツネ", "🦊🦊", "a \u200b fox", "\ud83d", "<image_1>", "[INST] </s> <img>"]
)
def test_whatever_is_typed_the_conversation_goes_on(talk, words, tmp_path):
    code, out, err = talk("a fox on teal", words, "/save", "a cat on red", "/quit")
    assert code == 0 and "saved: " in err and (tmp_path / "out" / "chat_002.png").is_file()
