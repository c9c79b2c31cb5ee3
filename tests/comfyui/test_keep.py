"""What stays when a picture is edited, in a real ComfyUI: the bytes of saved PNGs outside the mask, painted by KSampler or by
SDXL Feature Decoder, at any size, with guidance, batches, LoRA and img2img.

Skipped unless WEGEN_COMFYUI names a checkout; see conftest.py. WEGEN_SHOTS=folder keeps what was painted.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.tests.comfyui.test_host import node

pytestmark = pytest.mark.comfyui

SIZES = {"square": (128, 128), "wide": (300, 97), "tall": (61, 210), "larger than the decoder": (400, 333)}
LORA = "wegen-keep.safetensors"


def original(width: int, height: int, seed: int = 0) -> np.ndarray:
    """(h,w,3) bytes: a smooth picture with noise, in which all 256 values occur."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], -1)
    return (smooth + np.random.default_rng(seed).integers(0, 40, smooth.shape)).clip(0, 255).astype(np.uint8)


def masked(width: int, height: int) -> np.ndarray:
    """(h,w) bool: a box and a line of one pixel."""
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height * 3 // 4, width // 3 : width * 4 // 5] = True
    mask[height // 8] = True
    return mask


@pytest.fixture(scope="module")
def pictures(comfy):
    """name -> (original, mask) as arrays; both lie in the input folder as NAME.png and NAME-mask.png."""
    found = {}
    for name, size in SIZES.items():
        found[name] = original(*size), masked(*size)
        Image.fromarray(found[name][0]).save(comfy.base / "input" / f"keep-{name}.png")
        Image.fromarray(found[name][1].astype(np.uint8) * 255).save(comfy.base / "input" / f"keep-{name}-mask.png")
    return found


@pytest.fixture(scope="module")
def lora(comfy):
    """A random LoRA on every linear layer of the transformers in the miniature's UNet, as kohya's trainer names them."""
    from safetensors import safe_open
    from safetensors.torch import save_file
    from wegen.wegen_model.checkpoint.model_paths import resolve

    layers = {}
    with safe_open(resolve("wegen-mini") / "unet" / "diffusion_pytorch_model.safetensors", "pt") as weights:
        for key in weights.keys():  # noqa: SIM118
            shape = weights.get_slice(key).get_shape()
            if "transformer_blocks" in key and len(shape) == 2:
                high, wide = shape
                name = f"lora_unet_{key.removesuffix('.weight').replace('.', '_')}"
                generator = torch.Generator().manual_seed(0)
                layers[f"{name}.lora_up.weight"] = torch.randn(high, 2, generator=generator)
                layers[f"{name}.lora_down.weight"] = torch.randn(2, wide, generator=generator) / wide**0.5
    assert layers
    folder = comfy.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(layers, folder / LORA)
    return LORA


def edit(name: str, cfg: float = 1.5, denoise: float = 1.0, inside: str = "empty", batch: int = 1, lora: str | None = None) -> dict:
    """One edit twice: by KSampler with core's noise mask, saved by "native"; by SDXL Feature Decoder, saved by "own"."""
    prompt = {
        "model": node("WeGenLoadModel", model="wegen-mini", dtype="default"),
        "picture": node("LoadImage", image=f"keep-{name}.png"),
        "mask": node("LoadImageMask", image=f"keep-{name}-mask.png", channel="red"),
        "what": node("WeGenExamplePicture", picture="fox_on_beige"),
        "features": node("WeGenEncode", model=["model", 0], image=["what", 0], fit="squash"),
        "bridge": node("WeGenDecoderToModel", decoder=["model", 0]),
        "words": node("WeGenFeaturesToConditioning", features=["features", 0]),
        "latent": node(
            "WeGenOriginalToLatent", vae=["bridge", 1], original=["picture", 0], mask=["mask", 0], width=128, height=128, inside=inside
        ),
        "rows": node("RepeatLatentBatch", samples=["latent", 0], amount=batch),
        "sampler": node(
            "KSampler",
            model=["bridge", 0],
            positive=["words", 0],
            negative=["words", 1],
            latent_image=["rows", 0],
            seed=3,
            steps=10,
            cfg=cfg,
            sampler_name="euler",
            scheduler="simple",
            denoise=denoise,
        ),
        "pixels": node("VAEDecode", samples=["sampler", 0], vae=["bridge", 1]),
        "laid": node(
            "WeGenKeepOriginal",
            painted=["pixels", 0],
            original=["picture", 0],
            mask=["mask", 0],
            feather=3.0,
            grow=0.0,
            match_colours=False,
        ),
        "native": node("SaveImage", images=["laid", 0], filename_prefix="keep/native"),
        "decode": node(
            "WeGenDecode",
            features=["features", 0],
            decoder=["model", 0],
            seed=3,
            use_defaults=False,
            steps=10,
            guidance_scale=cfg,
            use_default_size=True,
            width=128,
            height=128,
            scheduler="from decoder",
            original=["picture", 0],
            mask=["mask", 0],
        ),
        "own": node("SaveImage", images=["decode", 0], filename_prefix="keep/own"),
    }
    if lora:
        prompt["lora"] = node("LoraLoaderModelOnly", model=["bridge", 0], lora_name=lora, strength_model=1.0)
        prompt["sampler"]["inputs"]["model"] = ["lora", 0]
    return prompt


def painted(comfy, prompt: dict) -> dict[str, list[np.ndarray]]:
    """The pictures of "native" and "own", as saved: (h,w,3) bytes."""
    run = comfy.queue(prompt)
    assert run.status == "success", run.error
    return {
        name: [np.asarray(Image.open(comfy.outputs / image["subfolder"] / image["filename"])) for image in run.outputs[name]["images"]]
        for name in ("native", "own")
    }


def stays(image: np.ndarray, before: np.ndarray, mask: np.ndarray) -> None:
    """Outside, no byte differs; inside, it was painted, the line of one pixel too."""
    assert image.shape == before.shape and image.dtype == np.uint8
    differs = (image != before).any(-1)
    assert differs[~mask].sum() == 0
    assert differs[mask].mean() > 0.9 and differs[mask.shape[0] // 8].mean() > 0.5


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("name", SIZES)
def test_ksampler_and_the_decoder_keep_the_rest_and_paint_the_same(comfy, pictures, name, cfg):
    """Two hosts, one edit: outside nothing differs; inside they differ by a rounding (measured: at most 1 of 255, .005 in
    the mean)."""
    before, mask = pictures[name]
    made = painted(comfy, edit(name, cfg))
    for image in (made["native"][0], made["own"][0]):
        stays(image, before, mask)
    apart = np.abs(made["native"][0].astype(int) - made["own"][0].astype(int))[mask]
    if folder := os.environ.get("WEGEN_SHOTS"):
        sheet = np.concatenate([before, made["native"][0], made["own"][0]], 1)
        Image.fromarray(sheet).save(Path(folder) / f"keep-{name}-{cfg:g}.png")
    assert apart.max() <= 2 and apart.mean() < 0.1


def test_several_pictures_each_with_its_noise(comfy, pictures):
    before, mask = pictures["wide"]
    made = painted(comfy, edit("wide", batch=3))["native"]
    assert len(made) == 3 and not np.array_equal(made[0], made[1])
    for image in made:
        stays(image, before, mask)


def test_a_lora_paints_otherwise_and_the_rest_stays(comfy, pictures, lora):
    before, mask = pictures["wide"]
    plain, changed = painted(comfy, edit("wide"))["native"][0], painted(comfy, edit("wide", lora=lora))["native"][0]
    stays(changed, before, mask)
    assert np.abs(changed.astype(int) - plain.astype(int))[mask].mean() > 3


def test_img2img_inside_the_mask(comfy, pictures):
    """A lower denoise leaves more of the original inside, and outside all of it; an empty latent would leave grey."""
    before, mask = pictures["square"]
    inside = {}
    for denoise in (0.3, 0.6, 1.0):
        image = painted(comfy, edit("square", denoise=denoise, inside="original"))["native"][0]
        assert (image != before).any(-1)[~mask].sum() == 0
        inside[denoise] = np.abs(image.astype(int) - before.astype(int))[mask].mean()
    grey = painted(comfy, edit("square", denoise=0.3, inside="empty"))["native"][0]
    assert inside[0.3] < inside[0.6] < inside[1.0]
    assert inside[0.3] < np.abs(grey.astype(int) - before.astype(int))[mask].mean()
