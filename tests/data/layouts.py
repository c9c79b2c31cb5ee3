"""A small hand-made sample of every dataset of Table 1, in the shape that its own source shows: the loader, card or listing that
docs/data.md names for it, not our reader. Each writer returns the folder. LAYOUTS has the first form, FORMS the others."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def flat(value: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A picture of one grey, with a coloured corner."""
    picture = np.full((size[1], size[0], 3), value, np.uint8)
    picture[:8, :8] = (value // 2, value, 0)
    return Image.fromarray(picture)


def save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flat(value).save(path)


def data(value: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    flat(value).save(out, kind)
    return out.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            out.addfile(member, io.BytesIO(body))


def img2dataset(folder: Path, values: dict) -> Path:
    """A whole picture and a broken one, with the fields that img2dataset writes of each; beside the tar its table without pictures."""

    def text(caption: str) -> bytes:
        size = {"width": 40, "height": 32, "original_width": 40, "original_height": 32}
        told = {
            "url": "http://a.example/b.jpg",
            "key": "000000000",
            "status": "success",
            "error_message": None,
            "exif": "{}",
            "sha256": "0",
        }
        return json.dumps({"caption": caption, **told, **size, **values}).encode()

    tar(
        folder / "00000.tar",
        {
            "000000000.jpg": data(90, "JPEG"),
            "000000000.json": text("a dog in a field of flowers"),
            "000000000.txt": b"a dog in a field",
            "000000001.jpg": data(120, "JPEG")[:200],
            "000000001.json": text("broken"),
            "000000001.txt": b"broken",
        },
    )
    return folder


def laion_coco(folder: Path) -> Path:
    return img2dataset(folder, {"top_caption": "a dog", "all_captions": ["a dog"], "all_similarities": [0.3], "similarity": 0.3, "hash": 1})


def capsfusion(folder: Path) -> Path:
    return img2dataset(folder, {"laion_2b": "dog sale", "laion_coco": "a dog", "capsfusion": "a dog stands among flowers"})


def grit(folder: Path) -> Path:
    chunks = [
        [0, 5, 0.1, 0.2, 0.6, 0.9, 0.9],
        [9, 27, 0.0, 0.0, 1.0, 1.0, 0.8],
        [0, 5, 0.5, 0.5, 0.6, 0.6, 0.7],
        [20, 27, 0.7, 0.1, 0.9, 0.4, 0.6],
    ]
    more = {
        "id": 1795296605919,
        "ref_exps": [[0, 27, 0.1, 0.2, 0.6, 0.9, 0.9]],
        "clip_similarity_vitb32": 0.3,
        "clip_similarity_vitl14": 0.3,
    }
    return img2dataset(folder, {"noun_chunks": chunks, **more})


def object365(folder: Path) -> Path:
    save(folder / "train/images/v1/patch0/objects365_v1_00000001.jpg", 80)
    (folder / "train/zhiyuan_objv2_train.json").write_text("{}")
    bad = folder / "train/images/v2/patch16/objects365_v2_00000002.jpg"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"not a picture")
    return folder


def openimages(folder: Path) -> Path:
    save(folder / "train_0/000002b66c9c498e.jpg", 80)
    save(folder / "train_0/readme-picture.jpg", 10)
    return folder


def journeydb(folder: Path) -> Path:
    root = folder / "data/train"
    save(root / "imgs/000/a.jpg", 80)
    rows = [
        {
            "img_path": "./000/a.jpg",
            "prompt": "a fox, oil painting --ar 16:9 --v 4",
            "Task2": {"Caption": "A fox in oils."},
            "Task3": {"Content": [{"Question": "What is it?", "Options": {"A": "fox"}, "Answer": "A"}], "Style": []},
        },
        {"img_path": "./000/gone.jpg", "prompt": "a hole", "Task2": {"Caption": None}},
    ]
    (root / "train_anno_realease_repath.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{cut")
    return folder


def multigen(folder: Path) -> Path:
    (folder / "json_files").mkdir(parents=True)
    save(folder / "images/aesthetics_6_plus_0/1.jpg", 100)
    for kind, value in (("canny", 20), ("blur", 90), ("hedsketch", 30)):
        save(folder / f"conditions/aesthetics_6_25_plus_group_0_{kind}/1.png", value)
        row = {
            f"control_{kind}": f"aesthetics_6_25_plus_group_0_{kind}/1.png",
            "source": "./aesthetics_6_plus_0/1.jpg",
            "prompt": "a grey wall",
        }
        (folder / f"json_files/aesthetics_plus_all_group_{kind}_all.json").write_text(json.dumps(row) + "\n")
    return folder


def seed_edit(folder: Path) -> Path:
    part1, part3 = folder / "Part1/auto_editing/openimages", folder / "Part2-3/multi_turn_editing"
    for path, value in (
        (part1 / "images/source_images/a.jpg", 50),
        (part1 / "images/target_images/b.jpg", 60),
        (part3 / "images/t/0.jpg", 50),
        (part3 / "images/t/1.jpg", 60),
        (part3 / "images/t/2.jpg", 70),
    ):
        save(path, value)
    for part in (part1, part3):
        (part / "annotations").mkdir()
    (part1 / "annotations/split_0001.jsonl").write_text(
        json.dumps({"source_image": "source_images/a.jpg", "target_image": "target_images/b.jpg", "instruction": "make it lighter"})
        + "\n"
        + json.dumps({"source_image": "source_images/a.jpg", "instruction": "no result"})
        + "\n"
    )
    (part3 / "annotations/split_0001.jsonl").write_text(
        json.dumps(
            {
                "source_image": "t/0.jpg",
                "instruction_1": "lighter",
                "edit_image_1": "t/1.jpg",
                "instruction_2": "again",
                "edit_image_2": "t/2.jpg",
            }
        )
    )
    return folder


def magicbrush(folder: Path) -> Path:
    """Needs pyarrow."""

    def image(value: int) -> dict:
        return {"bytes": data(value), "path": None}

    def row(group: str, turn: int, source: dict, instruction: str, value: int) -> dict:
        return {
            "img_id": group,
            "turn_index": turn,
            "source_img": source,
            "mask_img": image(0),
            "instruction": instruction,
            "target_img": image(value),
        }

    rows = [
        row("7", 1, image(50), "add a cat", 60),
        row("7", 2, image(60), "now a dog", 70),
        row("8", 1, {"bytes": b"x", "path": None}, "a", 1),
    ]
    parquet(folder / "data/train-00000-of-00031-453c1a9ccc53b253.parquet", rows)
    parquet(folder / "data/dev-00000-of-00004-384b81a61c93b7e3.parquet", [row("9", 1, image(50), "held out", 60)])
    return folder


def hr_viton(folder: Path) -> Path:
    for part, value in (("agnostic-v3.2", 30), ("cloth", 60), ("image", 90)):
        save(folder / f"train/{part}/00001_00.jpg", value)
    (folder / "train_pairs.txt").write_text("00001_00.jpg 00002_00.jpg\n00009_00.jpg 00001_00.jpg\n")
    return folder


def stylebooth(folder: Path) -> Path:
    save(folder / "src/1.jpg", 40)
    save(folder / "tgt/1.jpg", 80)
    (folder / "train.csv").write_text(
        "EnStyle,ZhStyle,ShortStyleName,Target:FILE,Source:FILE,SearchResult:DICT\n"
        "Oil Painting,\u6cb9\u753b,oil,tgt/1.jpg,src/1.jpg,{}\nshort,row\n",
        encoding="utf-8",
    )
    return folder


SAID = [
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A grey wall."},
    {"from": "human", "value": "Why <image_9>?"},
    {"from": "gpt", "value": "I cannot say."},
]


def _llava(folder: Path, file: str, rows: list) -> Path:
    """`rows`: picture below the folder, what is said, the id."""
    listed = []
    for image, said, name in rows:
        save(folder / image, 40)
        listed.append({"id": name, "image": Path(image).name, "conversations": said})
    (folder / file).write_text(json.dumps(listed))
    return folder


def llava(folder: Path) -> Path:
    image = "train2017/000000033471.jpg"
    return _llava(folder, "llava_instruct_150k.json", [(image, SAID, "000000033471"), (image, SAID[1:], "000000033471")])


def llavar(folder: Path) -> Path:
    """Fine-tuning: LLaVA's instructions, whose pictures are COCO's, and then LLaVAR's own, with made-up names of COCO's form."""
    own = "finetune/100000001234.jpg"
    rows = [("train2017/000000033471.jpg", SAID, "000000033471"), (own, SAID, "100000001234"), (own, SAID[1:], "100000001234")]
    return _llava(folder, "llava_instruct_150k_llavar_16k.json", rows)


def llavar_pretraining(folder: Path) -> Path:
    said = [{"from": "human", "value": "What words are in this picture?\n<image>"}, {"from": "gpt", "value": "SALE\n50 %"}]
    return _llava(folder, "chat_llavar.json", [("pretrain/GCC_train_000900000.jpg", said, "GCC_train_000900000")])


def parquet(path: Path, rows: list[dict]) -> Path:
    """Needs pyarrow. Pictures as Hugging Face stores them: {bytes, path}."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def stored(value: int) -> dict:
    return {"bytes": data(value), "path": None}


def llava_names(folder: Path) -> Path:
    """refs/convert/parquet of liuhaotian/LLaVA-Instruct-150K: default/train/0000.parquet, the picture's name."""
    save(folder / "train2017/000000033471.jpg", 40)
    parquet(folder / "default/train/0000.parquet", [{"id": "000000033471", "image": "000000033471.jpg", "conversations": SAID}])
    return folder


def llava_pictures(folder: Path) -> Path:
    """Re-uploads with the picture in the row (asadfgglie/LLaVA-Instruct-150K-zh-tw has this form)."""
    parquet(folder / "data/train-00000-of-00017.parquet", [{"id": "000000033471", "image": stored(40), "conversations": SAID}])
    return folder


def llavar_exported(folder: Path) -> Path:
    """HuggingFaceM4/LLaVAR-Instruct-16K: image, user_texts, bot_texts."""
    row = {"image": stored(40), "user_texts": ["What does it say?"], "bot_texts": ["SALE\n50 %"]}
    parquet(folder / "data/train-00000-of-00003.parquet", [row])
    return folder


def scienceqa_exported(folder: Path) -> Path:
    """derek-thomas/ScienceQA: data/{train,validation,test}-*.parquet, image null where there is none, no split column."""
    row = {
        "image": stored(40),
        "question": "Which is a metal?",
        "choices": ["iron", "wood"],
        "answer": 0,
        "hint": "Look.",
        "task": "closed choice",
        "grade": "grade2",
        "subject": "natural science",
        "topic": "physics",
        "category": "Materials",
        "skill": "Identify materials",
        "lecture": "",
        "solution": "Iron is a metal.",
    }
    for split, count in (("train", 2), ("validation", 1), ("test", 1)):
        name = f"data/{split}-00000-of-00001-1028f23e353fbe3e.parquet"
        parquet(folder / name, [{**row, "image": stored(40) if i == 0 else None} for i in range(count)])
    return folder


def capsfusion_parquet(folder: Path) -> Path:
    """img2dataset --output_format parquet: the picture's bytes in the column jpg, null where the download failed."""
    told = {"key": "000000000", "url": "u", "status": "success", "laion_2b": "dog sale", "laion_coco": "a dog"}
    rows = [
        {"jpg": data(90, "JPEG"), "caption": "a dog stands among flowers", "capsfusion": "a dog stands among flowers", **told},
        {"jpg": None, "caption": "gone", "capsfusion": "gone", **told, "status": "failed_to_download"},
    ]
    parquet(folder / "00000.parquet", rows)
    return folder


def multigen_parquet(folder: Path) -> Path:
    """limingcv/MultiGen-20M_depth: image, text, control_depth (the names in ControlNet++'s commands)."""
    rows = [{"image": stored(100), "text": text, "control_depth": stored(20)} for text in ("a grey wall", None)]
    parquet(folder / "data/train-00000-of-02292-e38341a3d630bc8d.parquet", rows)
    return folder


def object365_first(folder: Path) -> Path:
    """The first version, as mmdetection's objects365v1 has it: flat."""
    save(folder / "train/obj365_train_000000000001.jpg", 80)
    return folder


def scienceqa(folder: Path) -> Path:
    save(folder / "data/scienceqa/images/train/5/image.png", 40)
    plain = {
        "question": "Which is a metal?",
        "choices": ["iron", "wood"],
        "answer": 0,
        "hint": "",
        "image": None,
        "split": "train",
        "lecture": "",
        "solution": "Iron is a metal.",
    }
    problems = {
        "4": plain,
        "5": {**plain, "image": "image.png", "hint": "Look."},
        "6": {**plain, "split": "test"},
        "7": {**plain, "answer": 9},
    }
    (folder / "data/scienceqa/problems.json").write_text(json.dumps(problems))
    return folder


LAYOUTS = {
    "laion-coco": laion_coco,
    "capsfusion": capsfusion,
    "grit": grit,
    "object365": object365,
    "openimages": openimages,
    "journeydb": journeydb,
    "multigen-20m": multigen,
    "seed-edit": seed_edit,
    "magicbrush": magicbrush,
    "hr-viton": hr_viton,
    "stylebooth": stylebooth,
    "llava-150k": llava,
    "llavar": llavar,
    "scienceqa": scienceqa,
}

FORMS = {  # dataset, form -> writer
    ("object365", "first version"): object365_first,
    ("llavar", "pretraining"): llavar_pretraining,
    ("llavar", "parquet"): llavar_exported,
    ("llava-150k", "parquet with names"): llava_names,
    ("llava-150k", "parquet with pictures"): llava_pictures,
    ("scienceqa", "parquet"): scienceqa_exported,
    ("capsfusion", "parquet"): capsfusion_parquet,
    ("multigen-20m", "parquet"): multigen_parquet,
}
