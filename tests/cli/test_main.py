"""The command line: what it says, where it writes, and its exit codes. The bundled miniature does the work."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.__main__ import main
from wegen.wegen_model.cli.output import save_picture

ROOT = Path(__file__).parents[2]


@pytest.fixture
def picture(tmp_path) -> Path:
    pixels = np.full((128, 128, 3), (40, 90, 230), np.uint8)
    pixels[32:96, 32:96] = (250, 220, 40)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_encode_and_decode_give_the_picture_back(picture, tmp_path):
    assert main(["encode", str(picture), str(tmp_path / "f.safetensors")]) == 0
    assert main(["decode", str(tmp_path / "f.safetensors"), str(tmp_path / "again.png"), "--steps", "8"]) == 0
    a, b = (np.array(Image.open(p).convert("RGB")) / 255 for p in (picture, tmp_path / "again.png"))
    assert -10 * np.log10(((a - b) ** 2).mean()) > 15


def test_grey_pictures_of_16_bits_keep_their_brightness(tmp_path):
    from wegen.wegen_model.images import read_float

    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(tmp_path / "grey.png")
    assert read_float(tmp_path / "grey.png").mean().item() == pytest.approx(3000 / 65535, abs=1e-3)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda p: p.write_bytes(b"no picture"), "not a picture"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: None, "there is no picture"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, capsys, make, text):
    make(tmp_path / "x.png")
    assert main(["encode", str(tmp_path / "x.png"), str(tmp_path / "f.safetensors")]) == 2
    assert text in capsys.readouterr().err


def test_a_truncated_picture_is_damaged(picture, tmp_path, capsys):
    (tmp_path / "half.png").write_bytes(picture.read_bytes()[:120])
    assert main(["encode", str(tmp_path / "half.png"), str(tmp_path / "f.safetensors")]) == 2
    assert "damaged" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_refused_first(picture, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["encode", str(picture), str(tmp_path / "file" / "f.safetensors")]) == 2
    assert "file" in capsys.readouterr().err


def test_a_seed_past_64_bits_is_named(picture, tmp_path, capsys):
    main(["encode", str(picture), str(tmp_path / "f.safetensors")])
    assert main(["decode", str(tmp_path / "f.safetensors"), str(tmp_path / "a.png"), "--seed", str(2**70)]) == 2
    assert "seed" in capsys.readouterr().err


def test_a_terminal_conversation_draws_refines_and_keeps_earlier_pictures(tmp_path, capsys, monkeypatch):
    (tmp_path / "chat_004.png").write_bytes(b"from yesterday")
    monkeypatch.setattr("sys.stdin", io.StringIO("a fox on a teal background\nmake the background red\n/quit\n"))
    assert main(["chat", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "chat_004.png").read_bytes() == b"from yesterday"
    first, second = (np.array(Image.open(tmp_path / f"chat_{i:03d}.png")) for i in (5, 6))
    assert first[4, 4, 1] > first[4, 4, 0] and second[4, 4, 0] > second[4, 4, 1]  # teal, then red


def test_mini_concepts_lists_what_it_knows(capsys):
    assert main(["mini", "concepts"]) == 0
    words = capsys.readouterr().out.split()
    assert "fox" in words and len(words) == 24


def test_inspect_says_what_the_miniature_is(capsys):
    assert main(["inspect", str(ROOT / "wegen_model" / "mini" / "weights")]) == 0
    assert "wegen-mini" in capsys.readouterr().out


def test_run_paints_from_the_readers_words(tmp_path):
    workflow = str(ROOT / "workflows" / "text_to_picture.json")
    assert main(["run", workflow, "--set", "WeGenChat.message=a star on a navy background", "--out", str(tmp_path), "--seed", "3"]) == 0
    (saved,) = tmp_path.rglob("*.png")
    assert set(Image.open(saved).text) == {"prompt", "workflow"} and "a star on a navy background" in Image.open(saved).text["workflow"]


def test_run_takes_a_name_of_the_canvas_and_says_what_it_made_once(tmp_path, capsys):
    workflow = str(ROOT / "workflows" / "text_to_picture.json")
    assert main(["run", workflow, "--set", "WeGen Chat.message=a {star|star} on a navy background // x", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "WeGen Chat (node 2), message: a star on a navy background" and "[1/5] Load WeGen Model (node 1)" in lines
    assert [line for line in lines if line.startswith("Save Image (node 5): ")] and len(lines) == len(set(lines))


def test_run_into_a_picture_is_refused(capsys):
    assert main(["run", str(ROOT / "workflows" / "text_to_picture.json"), "--out", "fox.jpg"]) == 2
    assert "--out fox.jpg: is a folder" in capsys.readouterr().err and not Path("fox.jpg").exists()


def test_a_picture_is_written_in_the_format_of_its_name(tmp_path):
    image = torch.rand(16, 24, 3)
    for suffix, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP")):
        save_picture(image, tmp_path / f"a{suffix}")
        with Image.open(tmp_path / f"a{suffix}") as picture:
            assert (picture.format, picture.size) == (kind, (24, 16))


def test_decode_refuses_a_format_before_it_loads_a_model(tmp_path, capsys):
    assert main(["decode", str(tmp_path / "none.safetensors"), str(tmp_path / "a.psd")]) == 2
    assert "a.psd: pictures are written as .png, .jpg, .jpeg, .webp" in capsys.readouterr().err


def test_run_refuses_a_file_that_is_no_workflow(tmp_path, capsys):
    (tmp_path / "x.json").write_text("not json")
    assert main(["run", str(tmp_path / "x.json")]) == 2
    assert "JSON" in capsys.readouterr().err


def test_convert_and_inspect_on_the_command_line(converted, tmp_path, capsys):
    file, folder = str(tmp_path / "unet.safetensors"), str(tmp_path / "decoder")
    assert main(["convert", str(converted), file, "--layout", "ldm-unet", "--part", "unet"]) == 0
    assert "LDM UNet: unet" in capsys.readouterr().out
    assert main(["convert", file, folder, "--dtype", "bfloat16"]) == 0
    assert main(["inspect", folder, "--verify"]) == 0
    out = capsys.readouterr().out
    assert "BF16" in out and "every file is as it was written" in out
    assert main(["convert", file, folder + "2", "--layout", "timm", "--initialise"]) == 2
    assert "leave out --config, --initialise and --quantize" in capsys.readouterr().err
    assert main(["convert", file, folder + "2", "--initialise"]) == 2
    assert "nothing to initialise" in capsys.readouterr().err


def test_whatever_a_turn_raises_ends_that_turn_and_not_the_conversation(picture, tmp_path, monkeypatch, capsys):
    from wegen.tests.test_images import huge_png
    from wegen.wegen_model.pipeline import WeGen

    (tmp_path / "bomb.png").write_bytes(huge_png())
    chat, calls = WeGen.chat, []

    def failing(self, talk, **options):
        calls.append(len(talk.turns))
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return chat(self, talk, **options)

    monkeypatch.setattr(WeGen, "chat", failing)
    lines = iter([f"/image {picture}", "what is <image_1>?", f"/image {tmp_path / 'bomb.png'}", "and now?", "what is this?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert main(["chat", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "bomb.png cannot be read: it holds more than" in said.err and "given up (RuntimeError: out of memory)" in said.err
    assert calls == [1, 3, 3], "the turn that failed is not in the conversation, what was said before it is"
