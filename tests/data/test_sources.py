"""What each dataset's own source shows, read as it is meant: the other forms in which datasets are distributed, and rows that were lost,
counted twice or trained on although they are empty."""

import json
import tarfile

import numpy as np
import pytest
from wegen.tests.data import layouts
from wegen.tests.data.layouts import FORMS, LAYOUTS, SAID, data, parquet, save, stored
from wegen.wegen_model.data import optional
from wegen.wegen_model.data.items import Item, Skips, every
from wegen.wegen_model.data.readers import guesses, items
from wegen.wegen_model.data.readers.captions import midjourney
from wegen.wegen_model.data.readers.files import decoded, words

webdataset = pytest.importorskip("webdataset")


def read(name, folder, task=""):
    skips = Skips()
    return list(every(items(name, folder, task, skips), name, skips)), skips


def grey(picture):
    return round(float(np.asarray(picture)[16:, 16:].mean()))


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_form_in_which_a_dataset_is_distributed_is_read(name, form, tmp_path):
    if "parquet" in form:
        pytest.importorskip("pyarrow")
    found, skips = read(name, FORMS[name, form](tmp_path))
    expected = {"scienceqa": 2}.get(name, 1)  # of three splits: training's
    assert len(found) == expected, skips.text()
    assert skips.total == (name in ("capsfusion", "multigen-20m")), skips.text()
    shown = [p for t in found[0].turns for p in (*t.pictures, t.drawn) if p is not None]
    assert shown and {grey(p) for p in shown} <= {20, 40, 80, 90, 91, 100}
    if name in ("llava-150k", "llavar", "scienceqa", "multigen-20m") and "parquet" in form:
        assert name in guesses(tmp_path)


def test_llavar_reads_its_own_rows_and_their_pictures_and_not_llavas_again(tmp_path):
    found, skips = read("llavar", LAYOUTS["llavar"](tmp_path))
    assert [s.key for s in found] == ["100000001234"] and found[0].turns[0].pictures[0] is not None
    assert skips.total == 1, skips.text()  # its second row is broken; LLaVA's row is no fault


def test_line_breaks_of_answers_stay(tmp_path):
    (sample,), _ = read("llavar", layouts.llavar_pretraining(tmp_path))
    assert sample.turns[-1].text == "SALE\n50 %" and "\n" not in sample.turns[0].text


def test_an_empty_answer_ends_its_conversation_and_ids_that_repeat_are_told_apart(tmp_path):
    folder = LAYOUTS["llava-150k"](tmp_path)
    ends = [*SAID[:2], SAID[2], {"from": "gpt", "value": " \n"}, {"from": "human", "value": "So?"}, {"from": "gpt", "value": "So."}]
    rows = [
        {"id": "7", "image": "000000033471.jpg", "conversations": said} for said in (SAID, ends, [SAID[0], {"from": "gpt", "value": ""}])
    ]
    (folder / "llava_instruct_150k.json").write_text(json.dumps(rows))
    found, skips = read("llava-150k", folder)
    assert [len(s.turns) for s in found] == [4, 2] and len({s.key for s in found}) == 2
    assert skips.total == 1 and "an answer is empty" in skips.text()


def test_a_number_that_cannot_be_kept_costs_its_row_and_not_the_file(tmp_path):
    folder = LAYOUTS["llava-150k"](tmp_path)
    row = json.dumps({"id": "7", "image": "000000033471.jpg", "conversations": SAID})
    bad = row.replace('"Why <image_9>?"', "NaN")
    (folder / "llava_instruct_150k.json").write_text(f"[{row}, {bad}]")
    found, skips = read("llava-150k", folder)
    assert len(found) == 1 and skips.total == 1 and "a question is missing" in skips.text()


def seed_rows(folder, where, rows):
    path = folder / where / "split_0001.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_pair_of_seed_edit_that_was_worded_again_is_read_once_in_the_new_words(tmp_path):
    folder = LAYOUTS["seed-edit"](tmp_path)
    part = "Part1/auto_editing/openimages"
    pair = {"source_image": "source_images/a.jpg", "target_image": "target_images/b.jpg"}
    other = {**pair, "target_image": "source_images/a.jpg"}
    new = {**pair, "instruction": "Lighten it, please.", "instruction_ori": "make it lighter"}
    only = {**other, "instruction_new": "Leave it.", "instruction": "nothing", "response": "It stays as it was."}
    seed_rows(folder, f"{part}/annotations_GPT4V", [new, only])
    found, skips = read("seed-edit", folder)
    single = [s for s in found if len(s.turns) == 2]
    assert sorted(s.turns[0].text.replace("<image_1>", "").strip() for s in single) == ["Leave it.", "Lighten it, please."]
    assert "It stays as it was." in [s.turns[1].text for s in single]
    assert len({s.key for s in found}) == len(found) == 3  # both parts have a split_0001.jsonl


def test_a_null_or_broken_later_turn_costs_itself(tmp_path):
    folder = LAYOUTS["seed-edit"](tmp_path)
    turn = {"source_image": "t/0.jpg", "instruction_1": "lighter", "edit_image_1": "t/1.jpg"}
    rows = [
        {**turn, "instruction_2": None, "edit_image_2": None},
        {**turn, "instruction_2": "again", "edit_image_2": "t/gone.jpg"},
        {**turn, "instruction_1": ["one", "two"]},
    ]
    seed_rows(folder, "Part2-3/multi_turn_editing/annotations", rows)
    found, skips = read("seed-edit", folder)
    assert [len(s.turns) for s in found if "multi" in s.key] == [2, 2]
    assert (
        "its turns from the 2. on: gone.jpg: the file is missing" in skips.text()
        and "its instruction is a list, not a text" in skips.text()
    )


def test_a_broken_later_turn_of_magicbrush_costs_itself(tmp_path):
    pytest.importorskip("pyarrow")
    row = {"img_id": "7", "source_img": stored(50), "mask_img": stored(0), "instruction": "add a cat"}
    rows = [{**row, "turn_index": 1, "target_img": stored(60)}, {**row, "turn_index": 2, "target_img": {"bytes": b"x", "path": None}}]
    parquet(tmp_path / "data/train-00000-of-00031-0.parquet", rows)
    (found,), skips = read("magicbrush", tmp_path)
    assert len(found.turns) == 2 and skips.total == 1 and "its turns from the 2. on" in skips.text()


def stylebooth(folder, rows, columns="ShortStyleName,Target:FILE,Source:FILE,SearchResult:DICT"):
    for name, value in (("src", 40), ("tgt", 80), ("like", 120)):
        save(folder / f"{name}.png", value)
    lines = [columns, *rows]
    (folder / "train.csv").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    return folder


def test_the_exemplars_of_stylebooth_are_shown(tmp_path):
    row = 'oil,tgt.png,src.png,"{""like.png"": 0.9, ""tgt.png"": 1.0}"'
    found, skips = read("stylebooth", stylebooth(tmp_path, [row] * 40))
    by_example = [s for s in found if len(s.turns[0].pictures) == 2]
    assert 8 < len(by_example) < 32 and not skips.total
    assert all([grey(p) for p in s.turns[0].pictures] == [40, 120] and grey(s.turns[1].drawn) == 80 for s in by_example)
    assert all("oil" in s.turns[0].text for s in found if len(s.turns[0].pictures) == 1)


def test_an_exemplar_that_cannot_be_shown_leaves_the_styles_name(tmp_path):
    rows = [f'oil,tgt.png,src.png,"{bad}"' for bad in ('{""gone.png"": 1}', "no json")] * 10
    found, skips = read("stylebooth", stylebooth(tmp_path, rows))
    assert len(found) == 20 and all("oil" in s.turns[0].text for s in found) and "its exemplar cannot be shown" in skips.text()


def test_a_table_in_another_encoding_is_refused_by_name(tmp_path):
    row = "\udcd3\udccd,tgt.png,src.png,{}"  # GBK
    found, skips = read("stylebooth", stylebooth(tmp_path, [row, "oil,tgt.png,src.png,{}"]))
    assert len(found) == 1 and skips.total == 1 and "its ShortStyleName is not text in UTF-8" in skips.text()


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a fox::2 in a wood::1 --ar 16:9 --v 4", "a fox, in a wood"),
        ("https://s.mj.run/abc123 a red-haired fox , oil --no text, frame --s 250", "a red-haired fox, oil"),
        ("<https://s.mj.run/abc123> fox:: rocket::-.5", "fox, rocket"),
        ("a fox - 4k, a clock at 16:9 —ar 3:2", "a fox - 4k, a clock at 16:9"),
        ("fox --no http --q 2", "fox"),
        ("https://s.mj.run/abc", ""),
    ],
)
def test_a_prompt_to_midjourney_becomes_words(prompt, said):
    assert midjourney(prompt) == said


def test_a_picture_of_journeydb_that_is_still_packed_or_named_otherwise(tmp_path):
    folder = LAYOUTS["journeydb"](tmp_path)
    root = folder / "data/train"
    (root / "imgs/001.tgz").write_bytes(b"")
    rows = [{"img_path": "./000/a.png", "prompt": "a fox"}, {"img_path": "./001/b.jpg", "prompt": "a hole"}]
    (root / "train_anno_realease_repath.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found, skips = read("journeydb", folder)
    assert len(found) == 1 and "imgs/001.tgz is not unpacked" in skips.text()


@pytest.mark.parametrize("prompt", [None, "", ["a"]])
def test_a_row_of_multigen_without_a_prompt_is_passed_over(tmp_path, prompt):
    folder = LAYOUTS["multigen-20m"](tmp_path)
    path = folder / "json_files/aesthetics_plus_all_group_canny_all.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prompt": prompt}) + "\n")
    found, skips = read("multigen-20m", folder)
    assert not any("edges" in s.turns[0].text and "soft" not in s.turns[0].text for s in found)
    assert skips.total == 1 and "its prompt is" in skips.text()


def test_the_official_labels_of_scienceqa(tmp_path):
    found, _ = read("scienceqa", LAYOUTS["scienceqa"](tmp_path))
    asked = found[1].turns[0].text.replace("<image_1>", "").strip()
    assert asked == "Question: Which is a metal?\nContext: Look.\nOptions: (A) iron (B) wood"


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("laion-coco", {"URL": "u", "TEXT": "a", "top_caption": "b"}),
        ("capsfusion", {"image_url": "u", "laion_2b": "a", "laion_coco": "b", "capsfusion": "c"}),
        ("grit", {"url": "u", "caption": "a", "noun_chunks": [[0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.9]]}),
    ],
)
def test_a_table_of_addresses_is_answered_with_the_command_that_downloads(tmp_path, name, row):
    pytest.importorskip("pyarrow")
    parquet(tmp_path / "part-00000.parquet", [row])
    with pytest.raises(ValueError, match=r"table of addresses, not its pictures. Download them: img2dataset --url_list"):
        items(name, tmp_path)


def test_parquet_without_pyarrow_is_answered_in_words(tmp_path, monkeypatch):
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(optional.MissingLibrary, match='pip install "pyarrow"'):
        items("scienceqa", tmp_path)


def test_dots_in_the_names_of_a_tars_files_are_no_extensions(tmp_path):
    files = {}
    for i in range(3):
        files |= {
            f"photo.v{i}.final.jpg": data(90 + i, "JPEG"),
            f"photo.v{i}.final.json": json.dumps({"capsfusion": f"a wall {i}"}).encode(),
        }
    layouts.tar(tmp_path / "00000.tar", files)
    found, skips = read("capsfusion", tmp_path)
    assert [s.turns[0].text[-1] for s in found] == ["0", "1", "2"] and not skips.total


def test_a_damaged_header_in_a_tar_costs_what_it_heads(tmp_path):
    files = {}
    for i in range(4):
        files |= {f"{i:09d}.jpg": data(90, "JPEG"), f"{i:09d}.json": json.dumps({"capsfusion": f"a wall {i}"}).encode()}
    layouts.tar(tmp_path / "00000.tar", files)
    with tarfile.open(tmp_path / "00000.tar") as tar:
        header = tar.getmember("000000001.jpg").offset
    raw = bytearray((tmp_path / "00000.tar").read_bytes())
    raw[header : header + 512] = b"\xff" * 512
    (tmp_path / "00000.tar").write_bytes(raw)
    found, skips = read("capsfusion", tmp_path)
    assert [s.turns[0].text[-1] for s in found] == ["0", "2", "3"]
    assert "reading went on at the next whole file" in skips.text() and "no picture" in skips.text()


def test_what_is_no_tar_is_named(tmp_path):
    (tmp_path / "00000.tar").write_bytes(b"<html>not found</html>" * 100)
    found, skips = read("laion-coco", tmp_path)
    assert not found and "00000.tar" in skips.text() and "not a tar" in skips.text()


def test_damaged_rows_of_a_parquet_file_cost_their_group(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    folder = layouts.scienceqa_exported(tmp_path)
    path = next(folder.rglob("train-*.parquet"))
    table = pq.read_table(path)
    pq.write_table(pyarrow.concat_tables([table] * 3), path, row_group_size=2, compression="none", use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    raw = bytearray(path.read_bytes())
    raw[chunk.data_page_offset : chunk.data_page_offset + 16] = b"\xff" * 16
    path.write_bytes(raw)
    found, skips = read("scienceqa", folder)
    assert len(found) == 4 and "3 to 4" in skips.text() and "these rows are damaged" in skips.text()


def test_a_caption_file_in_another_encoding_is_refused_by_name(tmp_path):
    layouts.tar(tmp_path / "00000.tar", {"0.jpg": data(90, "JPEG"), "0.txt": "ein Bär".encode("latin-1"), "0.json": b"{}"})
    found, skips = read("capsfusion", tmp_path)
    assert not found and "0.txt is not text in UTF-8 (byte 5); save it as UTF-8" in skips.text().replace("…", "0")
    assert decoded("ein Bär".encode("utf-16"), "x") == "ein Bär"


def test_whatever_one_record_raises_costs_that_record(tmp_path):
    import zlib

    def broken():
        raise zlib.error("Error -3")

    def missing():
        raise optional.MissingLibrary("av is not installed")

    skips = Skips()
    assert list(every([Item("row 7", broken)], "x", skips)) == [] and "form of the dataset's (error: Error -3)" in skips.text()
    with pytest.raises(optional.MissingLibrary):
        list(every([Item("row 7", missing)], "x", skips))
    with pytest.raises(ValueError, match="its prompt is a number, not a text"):
        words(3, "its prompt")
