"""The stand-ins of `wegen run` and the workflow inside a PNG."""

import json
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from wegen.wegen_model import workflow as graph
from wegen.wegen_model.workflow.standins import fill_prefix


def load(name, *folders):
    loader, where = graph.STANDINS["LoadImage"], graph.Folders(folders)
    verdict = loader.VALIDATE_INPUTS(name, where)
    assert verdict is True, verdict
    return loader().load_image(name, where)


def saver(out_dir, metadata=True):
    node = graph.STANDINS["SaveImage"]()
    node.metadata, node.save_images = metadata, partial(node.save_images, folders=graph.Folders(output=out_dir))
    return node


def names(saved):
    return [entry["filename"] for entry in saved["ui"]["images"]]


def test_a_picture_becomes_image_and_blank_mask(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image, mask = load("a.png", tmp_path)
    assert image.dtype == torch.float32 and torch.equal(image, torch.from_numpy(pixels).float()[None] / 255)
    assert mask.shape == (1, 64, 64) and mask.max() == 0


def test_alpha_is_the_inverted_mask(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[..., 0], pixels[0, 0, 3] = 255, 255
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    image, mask = load("a.png", tmp_path)
    assert image.shape == (1, 2, 3, 3) and image[..., 0].min() == 1
    assert mask[0, 0, 0] == 0 and mask.sum() == 5


def test_palette_with_transparency(tmp_path):
    picture = Image.new("P", (4, 2), 1)
    picture.putpalette([0, 0, 0, 0, 255, 0])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "p.png", transparency=0)
    image, mask = load("p.png", tmp_path)
    assert image[0, 1, 1].tolist() == [0, 1, 0] and mask[0, 0, 0] == 1 and mask.sum() == 1


def test_grey_of_8_and_16_bits(tmp_path):
    Image.fromarray(np.full((2, 2), 51, np.uint8)).save(tmp_path / "g.png")
    Image.fromarray(np.array([[0, 32768], [65535, 257]], np.uint16)).save(tmp_path / "deep.png")
    assert torch.allclose(load("g.png", tmp_path)[0], torch.full((1, 2, 2, 3), 0.2))
    deep = load("deep.png", tmp_path)[0]
    assert torch.allclose(deep[0, :, :, 1].flatten(), torch.tensor([0.0, 32768 / 65535, 1.0, 1 / 255]), atol=1e-6)


def test_camera_orientation_is_applied(tmp_path):
    picture = Image.new("RGB", (6, 2), "red")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "o.jpg", exif=exif)
    assert load("o.jpg", tmp_path)[0].shape == (1, 6, 2, 3)


def test_frames_are_a_batch(tmp_path):
    frames = [Image.new("RGB", (3, 2), colour) for colour in ("black", "white")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image, _ = load("a.gif", tmp_path)
    assert image.shape == (2, 2, 3, 3) and image[0].max() == 0 and image[1].min() == 1


def test_pictures_are_found_in_the_input_folder_then_beside_the_workflow_or_by_full_path(tmp_path):
    for folder, level in (("in", 51), ("flow", 102)):
        (tmp_path / folder / "sub").mkdir(parents=True)
        Image.new("RGB", (1, 1), (level,) * 3).save(tmp_path / folder / "a.png")
    Image.new("RGB", (1, 1), (153,) * 3).save(tmp_path / "flow" / "sub" / "b.png")
    path = tmp_path / "flow" / "w.json"

    def level(image, input_dir=None):
        prompt = {
            "1": {"class_type": "LoadImage", "inputs": {"image": image}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
        path.write_text(json.dumps(prompt))
        (item,) = graph.run(graph.load_workflow(path, {}), {}, out_dir=tmp_path / "out", input_dir=input_dir)
        return int(np.asarray(Image.open(item.path)).max())

    assert level("a.png", tmp_path / "in") == 51
    assert level("a.png") == 102
    assert level("sub\\b.png [input]", tmp_path / "in") == 153
    assert level(str(tmp_path / "in" / "a.png")) == 51
    with pytest.raises(graph.GraphError) as caught:
        level("gone.png", tmp_path / "in")
    assert caught.value.problems == [
        f'node 1 (LoadImage), input image: there is no picture "gone.png" in {tmp_path / "in"} or {tmp_path / "flow"}; '
        "put the file there or give another, with its full path"
    ]


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png: cannot be read as a picture"):
        load("a.png", tmp_path)


def test_files_are_numbered_on_from_the_highest(tmp_path):
    images = torch.rand(2, 4, 4, 3)
    assert names(saver(tmp_path).save_images(images, "cat")) == ["cat_00001_.png", "cat_00002_.png"]
    (tmp_path / "cat_00007_.png").write_bytes(b"")
    (tmp_path / "catfish_00050_.png").write_bytes(b"")
    assert names(saver(tmp_path).save_images(images[:1], "cat")) == ["cat_00008_.png"]
    saved = saver(tmp_path).save_images(images, "a/b/dog_%batch_num%")
    assert names(saved) == ["dog_0_00001_.png", "dog_1_00002_.png"] and saved["ui"]["images"][0]["subfolder"].replace("\\", "/") == "a/b"
    assert (tmp_path / "a" / "b" / "dog_1_00002_.png").is_file()


@pytest.mark.parametrize("prefix", ["../cat", "a/../../cat", "/cat"])
def test_a_prefix_cannot_leave_the_output_folder(tmp_path, prefix):
    with pytest.raises(ValueError, match="leads out of the output folder"):
        saver(tmp_path / "out").save_images(torch.rand(1, 2, 2, 3), prefix)
    assert not list(tmp_path.rglob("*.png"))


def test_prefix_variables():
    prompt = {"1": {"class_type": "Draw", "inputs": {"seed": 7, "name": "a/b"}, "_meta": {"title": "My Draw"}}}
    assert fill_prefix("%width%x%height%_%My Draw.seed%_%Draw.name%_%other%", 6, 4, prompt) == "6x4_7_a_b_%other%"
    assert fill_prefix("%year%/%date:yy-MM%", 1, 1) in (
        time.strftime("%Y/%y-%m"),
        time.strftime("%Y/%y-%m", time.localtime(time.time() - 1)),
    )


def test_chunks_are_comfyuis(tmp_path):
    prompt, workflow = {"1": {"class_type": "X", "inputs": {"text": "é"}}}, {"nodes": []}
    saver(tmp_path).save_images(torch.rand(1, 2, 2, 3), "a", prompt, {"workflow": workflow})
    text = Image.open(tmp_path / "a_00001_.png").text
    assert list(text) == ["prompt", "workflow"] and text["prompt"] == json.dumps(prompt) and text["workflow"] == json.dumps(workflow)
    saver(tmp_path, metadata=False).save_images(torch.rand(1, 2, 2, 3), "b", prompt, {"workflow": workflow})
    assert Image.open(tmp_path / "b_00001_.png").text == {}


def round_trip_ui():
    return {
        "nodes": [
            {
                "id": 1,
                "type": "LoadImage",
                "inputs": [],
                "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
                "widgets_values": ["a.png", "image"],
            },
            {"id": 2, "type": "SaveImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "widgets_values": ["one"]},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    }


def test_a_saved_png_runs_again_with_its_changed_values(tmp_path):
    Image.new("RGB", (3, 3), (90, 90, 90)).save(tmp_path / "a.png")
    path = tmp_path / "w.json"
    path.write_text(json.dumps(round_trip_ui()))
    assert graph.run_command(path, ["2.filename_prefix=two"], out=tmp_path / "out", nodes={}, echo=lambda line: None) == 0
    made = tmp_path / "out" / "two_00001_.png"
    embedded = graph.prompt_from_png(made)
    assert embedded["workflow"]["nodes"][1]["widgets_values"] == ["two"] and embedded["prompt"]["2"]["inputs"]["filename_prefix"] == "two"
    assert graph.load_workflow(embedded["workflow"], {}).prompt == embedded["prompt"]
    assert (
        graph.run_command(
            made, ["SaveImage.filename_prefix=three"], out=tmp_path / "out", input_dir=tmp_path, nodes={}, echo=lambda line: None
        )
        == 0
    )
    again = tmp_path / "out" / "three_00001_.png"
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(made)))
    assert graph.prompt_from_png(again)["workflow"]["nodes"][1]["widgets_values"] == ["three"]


def test_a_picture_without_a_workflow_is_refused(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "plain.png")
    with pytest.raises(graph.GraphError, match="no workflow is embedded in this picture"):
        graph.load_workflow(tmp_path / "plain.png", {})


@pytest.mark.parametrize(
    "kind, value, text",
    [
        ("PrimitiveInt", 3, "3"),
        ("PrimitiveFloat", 0.5, "0.5"),
        ("PrimitiveString", "a", "a"),
        ("PrimitiveStringMultiline", "a\nb", "a\nb"),
        ("PrimitiveBoolean", True, "True"),
    ],
)
def test_primitives_and_preview_any(tmp_path, kind, value, text):
    prompt = {"1": {"class_type": kind, "inputs": {"value": value}}, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
    (item,) = graph.run(graph.load_workflow(prompt, {}), {}, out_dir=tmp_path)
    assert (item.kind, item.text) == ("text", text)


@pytest.mark.parametrize("packed", [False, True])
def test_a_workflow_is_found_beside_a_large_profile_and_with_the_nan_that_comfyui_writes(tmp_path, packed):
    """ComfyUI embeds `"is_changed": [NaN]` for nodes that always run."""
    info = PngInfo()
    text = json.dumps(round_trip_ui() | {"extra": {"note": "ä" * (1 << 20), "is_changed": [float("nan")]}})
    info.add_itxt("workflow", text, zip=packed)
    Image.new("RGB", (3, 3)).save(tmp_path / "w.png", pnginfo=info, icc_profile=np.random.default_rng(0).bytes(2 << 20))
    found = graph.prompt_from_png(tmp_path / "w.png")["workflow"]
    assert len(found["extra"]["note"]) == 1 << 20 and found["extra"]["is_changed"] == [None] and len(found["nodes"]) == 2


def test_an_embedded_workflow_that_is_no_json_is_named(tmp_path):
    info = PngInfo()
    info.add_text("prompt", "[" * 100_000 + "]" * 100_000)
    Image.new("RGB", (3, 3)).save(tmp_path / "w.png", pnginfo=info)
    with pytest.raises(graph.GraphError, match='w.png: its embedded "prompt" is nested too deeply.*; use the workflow\'s own JSON'):
        graph.prompt_from_png(tmp_path / "w.png")


def test_the_switch_computes_only_the_side_that_it_takes(tmp_path):
    """As core's If/Else Switch; the other side here would fail."""
    Image.fromarray(np.full((4, 4, 3), 51, np.uint8)).save(tmp_path / "there.png")

    class Broken:
        RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "fail", ""

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}}

        def fail(self):
            raise ValueError("this side was computed")

    for switch in (True, False):
        sides = {
            "there": {"class_type": "LoadImage", "inputs": {"image": str(tmp_path / "there.png")}},
            "broken": {"class_type": "Broken", "inputs": {}},
        }
        chosen, other = ("on_true", "on_false") if switch else ("on_false", "on_true")
        sides["switch"] = {"class_type": "ComfySwitchNode", "inputs": {"switch": switch, chosen: ["there", 0], other: ["broken", 0]}}
        sides["saved"] = {"class_type": "SaveImage", "inputs": {"images": ["switch", 0], "filename_prefix": f"side_{switch}"}}
        (saved,) = graph.run(graph.load_workflow(sides, {"Broken": Broken}), {"Broken": Broken}, out_dir=tmp_path / "out")
        assert np.array(Image.open(saved.path)).max() == 51


def test_contains():
    contains = graph.STANDINS["StringContains"]().execute
    assert contains("a Fox on teal", "fox", False) == (True,) and contains("a Fox on teal", "fox") == (False,)
