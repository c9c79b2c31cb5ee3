"""`wegen data`: list, shards, inspect."""

import numpy as np
import pytest
from PIL import Image
from wegen.tests.data.layouts import LAYOUTS
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.checkpoint.model_folder import read_config
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.data.contact_sheet import FRAMES, rows, sheet
from wegen.wegen_model.data.model_inputs import model_inputs
from wegen.wegen_model.data.sample import Sample, Turn

pytest.importorskip("webdataset")


def test_from_a_dataset_to_shards_to_a_sheet(tmp_path, tiny, capsys):
    LAYOUTS["hr-viton"](tmp_path / "raw")
    assert main(["data", "shards", "hr-viton", str(tmp_path / "raw"), str(tmp_path / "shards")]) == 0
    told = capsys.readouterr().out
    assert "1 samples of hr-viton" in told and "1 skipped, all named in" in told and "the file is missing" in told
    assert "train_pairs.txt:2" in (tmp_path / "shards/skipped.jsonl").read_text()
    assert main(["data", "shards", "hr-viton", str(tmp_path / "raw"), str(tmp_path / "shards"), "--side", "64"]) == 2
    assert "was made with --side 1024" in capsys.readouterr().err
    small = ["data", "shards", "hr-viton", str(tmp_path / "raw"), str(tmp_path / "large"), "--least-side", "400"]
    assert main(small) == 2 and "its picture is smaller than 400 pixels" in capsys.readouterr().out
    out = tmp_path / "sheet.png"
    assert main(["data", "inspect", str(tmp_path / "shards"), "--model", str(tiny), "--count", "2", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "samples of hr-viton, condition" in told and "0 % padding" in told
    assert Image.open(out).size[0] == 1180
    assert main(["data", "inspect", str(tmp_path / "raw"), "--dataset", "hr-viton", "--model", str(tiny), "--out", str(out)]) == 0
    assert "samples of hr-viton, condition" in capsys.readouterr().out


def test_a_dataset_of_which_nothing_can_be_used_is_an_error(tmp_path, capsys):
    folder = LAYOUTS["laion-coco"](tmp_path / "raw")  # img2dataset's tars, but of another dataset
    assert main(["data", "shards", "grit", str(folder), str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert "no sample of grit could be made" in told.err and "no 'noun_chunks'" in told.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["inspect", "nowhere"], "nowhere: there is no such folder or file. Name a folder of pictures, a folder of shards, or a mixture"),
        (["shards", "coco", ".", "out"], "no dataset 'coco'"),
        (["inspect", "m.json", "--rank", "3/2"], "write rank/world"),
    ],
)
def test_wrong_use_is_told(args, words, tiny, capsys):
    more = ["--model", str(tiny)] if args[0] == "inspect" else []
    assert main(["data", *args, *more]) == 2
    assert words in capsys.readouterr().err


def test_the_list_names_all_datasets(capsys):
    assert main(["data", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 16


def test_the_sheet_shows_what_the_ids_say(tiny):
    p, q = np.full((8, 8, 3), 40, np.uint8), np.full((8, 8, 3), 200, np.uint8)
    asked = Turn("user", "a <image_1><bbox_1> here", (p,), (Box(0.5, 0.5, 0.25, 0.25),))
    sample = Sample("subject", (asked, Turn("assistant", "so.", drawn=q)), "k")
    t = Tokenizer.load(tiny)
    config = read_config(tiny)
    n = config.features.count
    step = model_inputs([sample], config, t, np.random.default_rng(0), size=32)
    [row] = rows(step, t, n)
    assert [(r.text, r.trained) for r in row] == [
        ("<s>", False),
        ("[INST] a", False),
        ("<img>", False),
        (f"[picture 1: {n} features]", False),
        ("</img>", False),
        ("[box 140 140 56 56]", False),
        ("here [/INST]\n", False),
        ("so.", True),
        ("<img>", True),
        (f"[picture 2: {n} features]", False),
        ("</img>", False),
        ("</s>", True),
    ]
    image = np.array(sheet([step], config, t))
    assert (image == FRAMES[False]).all(-1).any() and (image == FRAMES[True]).all(-1).any()
    read, painted = image[8:152, 8:152], image[8:152, 160:304]
    assert (read[20:120, 20:120] == 40).all()  # the reference, without a box
    orange = (painted == (235, 94, 40)).all(-1)
    assert orange[73:110, 73:110].any() and not orange[:70].any()  # the box is a place in the picture to be painted
