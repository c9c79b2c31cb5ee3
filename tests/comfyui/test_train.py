"""WeGen Train Decoder and WeGen Train Subject in a real ComfyUI: they train, Cancel keeps the work, and LoRA loaders take what was written."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from wegen.tests.comfyui.server import ComfyServer
from wegen.tests.comfyui.test_pack import pictures_of

pytestmark = pytest.mark.comfyui
LORA = "house_style.safetensors"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from wegen.tests.comfyui.conftest import need_comfyui

    need_comfyui()
    with ComfyServer.from_environment() as server:
        folder = server.base / "input" / "art"
        folder.mkdir(parents=True)
        for i, colour in enumerate(("teal", "purple", "orange", "navy")):
            picture = Image.new("RGB", (128, 128), "black")
            draw = ImageDraw.Draw(picture)
            for k in range(0, 128, 16):  # a look of its own: stripes on black
                draw.line((k + 4 * i, 0, k + 4 * i, 128), fill=colour, width=6)
            picture.save(folder / f"{i}.png")
        yield server


def graph(steps: int, **more) -> dict:
    inputs = {
        "model": ["1", 0],
        "folder": "art",
        "name": "house_style",
        "steps": steps,
        "learning_rate": 3e-3,
        "rank": 8,
        "batch": 2,
        "seed": 1,
        "preview_every": 10,
    } | more
    return {
        "1": {"class_type": "WeGenLoadModel", "inputs": {"model": "wegen-mini", "dtype": "default"}},
        "2": {"class_type": "WeGenTrainDecoder", "inputs": inputs},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 2], "filename_prefix": "samples"}},
    }


def test_it_trains_and_the_decoder_has_learned(server):
    asked = []

    def cancel_once(event):
        if event["type"] == "progress" and event["data"]["max"] == 30 and event["data"]["value"] >= 8 and not asked:
            asked.append(event)
            server.interrupt()

    # from the eighth step on: 0.33 passes over some
    cancelled = server.queue(graph(30), on_event=cancel_once)
    assert cancelled.status == "interrupted", cancelled.error
    assert list((server.base / "output" / "wegen_training").glob("house_style-*/checkpoint/weights.pt")), "the work is lost"
    run = server.queue(graph(30))
    assert run.status == "success", run.error
    values = [e["data"]["value"] for e in run.events if e["type"] == "progress" and e["data"]["max"] == 30]
    assert values and min(values) >= 8, "it began anew"
    assert (server.base / "models" / "loras" / LORA).is_file()
    samples = pictures_of(server, run)["3"]
    assert len(samples) == 8
    for picture, painted in zip(samples[:4], samples[4:]):
        assert np.abs(picture.astype(int) - painted.astype(int)).mean() < 60


def test_comfyui_s_own_lora_loader_takes_it(server):
    """KSampler with ComfyUI's Load LoRA, and with our Decoder LoRA: the same picture, and another one than without."""
    server.free()

    def paint(kind: str):
        prompt = {
            "1": {"class_type": "WeGenLoadModel", "inputs": {"model": "wegen-mini", "dtype": "float32"}},
            "2": {"class_type": "LoadImage", "inputs": {"image": server.upload(server.base / "input" / "art" / "0.png", "one.png")}},
            "3": {"class_type": "WeGenEncode", "inputs": {"model": ["1", 0], "image": ["2", 0], "fit": "squash"}},
            "4": {"class_type": "WeGenFeaturesToConditioning", "inputs": {"features": ["3", 0]}},
            "5": {"class_type": "WeGenDecoderToModel", "inputs": {"decoder": ["1", 0]}},
            "6": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
            "7": {
                "class_type": "KSampler",
                "inputs": {
                    "model": ["5", 0],
                    "positive": ["4", 0],
                    "negative": ["4", 1],
                    "latent_image": ["6", 0],
                    "seed": 3,
                    "steps": 8,
                    "cfg": 1.5,
                    "sampler_name": "euler",
                    "scheduler": "simple",
                    "denoise": 1.0,
                },
            },
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["5", 1]}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": kind}},
        }
        if kind == "theirs":
            prompt["10"] = {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["5", 0], "lora_name": LORA, "strength_model": 1.0}}
            prompt["7"]["inputs"]["model"] = ["10", 0]
        if kind == "ours":
            prompt["10"] = {"class_type": "WeGenDecoderLora", "inputs": {"decoder": ["1", 0], "lora": LORA, "strength": 1.0}}
            prompt["5"]["inputs"]["decoder"] = ["10", 0]
        run = server.queue(prompt)
        assert run.status == "success", run.error
        return pictures_of(server, run)["9"][0].astype(int)

    plain, theirs, ours = paint("plain"), paint("theirs"), paint("ours")
    assert np.abs(theirs - ours).max() <= 2
    assert np.abs(theirs - plain).mean() > 1
    assert "lora key not loaded" not in server.log


def test_a_subject_is_trained_and_drawn_by_its_name(server):
    """WeGen Train Subject, ten steps; then WeGen Model LoRA behind the loader, in a graph of its own: at strength 0 it changes nothing."""
    server.free()
    folder = server.base / "input" / "mine"
    folder.mkdir()
    for i, ground in enumerate(("white", "beige", "cyan")):
        picture = Image.new("RGB", (128, 128), ground)
        ImageDraw.Draw(picture).polygon([(64, 16), (112, 64), (64, 112), (16, 64)], fill="purple")
        picture.save(folder / f"{i}.png")
    inputs = {"folder": "mine", "subject": "zilo", "steps": 10, "learning_rate": 1e-2, "rank": 4, "seed": 1, "preview_every": 5}
    loader = {"class_type": "WeGenLoadModel", "inputs": {"model": "wegen-mini", "dtype": "default"}}
    run = server.queue(
        {
            "1": loader,
            "2": {"class_type": "WeGenTrainSubject", "inputs": {"model": ["1", 0]} | inputs},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 2], "filename_prefix": "subject"}},
        }
    )
    assert run.status == "success", run.error
    assert len(pictures_of(server, run)["3"]) == 5
    assert (server.base / "models" / "loras" / "zilo.safetensors").is_file()

    def draw(strength: float | None) -> np.ndarray:
        model = ["1", 0] if strength is None else ["4", 0]
        asked = {"message": "a photo of zilo on a red background", "picture": "always", "rewrite": False, "temperature": 0.0, "top_p": 0.9}
        chat = {"model": model, "seed": 0, "max_tokens": 64, "trim_oldest": False} | asked
        written = {"model": model, "chat": ["5", 0], "guidance": 1.0, "mode": "autoregressive", "readout": "aligned", "trim_oldest": False}
        painted = {"features": ["6", 0], "decoder": model, "seed": 0, "use_defaults": True, "steps": 20, "guidance_scale": 3.0}
        painted |= {"use_default_size": True, "width": 1024, "height": 1024, "scheduler": "from decoder"}
        graph = {
            "1": loader,
            "5": {"class_type": "WeGenChat", "inputs": chat},
            "6": {"class_type": "WeGenDraw", "inputs": written},
            "7": {"class_type": "WeGenDecode", "inputs": painted},
            "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "zilo"}},
        }
        if strength is not None:
            graph["4"] = {"class_type": "WeGenModelLora", "inputs": {"model": ["1", 0], "lora": "zilo.safetensors", "strength": strength}}
        run = server.queue(graph)
        assert run.status == "success", run.error
        return pictures_of(server, run)["8"][0].astype(int)

    plain, off, learned = draw(None), draw(0.0), draw(1.0)
    assert np.abs(plain - off).max() == 0
    assert np.abs(learned - plain).mean() > 1
