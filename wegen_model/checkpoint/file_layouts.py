"""Where folders keep what: the public WeGen release, diffusers pipelines, Hugging Face model folders, GGUF. As tables."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from .model_folder import CheckpointError, read_json


@dataclass(frozen=True)
class Place:
    """Where a folder layout keeps something: the first glob that finds a file or folder counts."""

    what: str
    globs: tuple[str, ...]
    origin: str = ""  # where people get it, for messages


def _in(folders: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" if folder else name for folder in folders for name in names)


_SDXL = "pretrained/stable-diffusion-xl-base-1.0"
_DIFFUSERS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.*.safetensors",
    "diffusion_pytorch_model.safetensors.index.*.json",
    "diffusion_pytorch_model*.bin",
)  # the bf16 and fp16 variants behind the plain file
_TRANSFORMERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model.*.safetensors",
    "model.safetensors.index.*.json",
    "pytorch_model.bin.index.json",
)
_UNETS = ("stage1_final/unet", "unet", "diffusion-decoder/unet")
_VAES = ("vae", "diffusion-decoder/vae", f"{_SDXL}/vae")

# Files that hold weights, in the order of precedence: the first that offers a part gives the whole part. The agent's UNet thus
# overrides stage1_final/unet, as in the public loader, and visual.pt overrides a tower saved inside the agent.
RELEASE = (
    Place(
        "tower",
        (
            "EVA-CLIP/visual.pt",
            "pretrained/EVA-CLIP/visual.pt",
            "visual.pt",
            "EVA-CLIP/*.safetensors",
            "*visual*.safetensors",
            "EVA02_CLIP_E*.pt",
        ),
        "EVA-CLIP/visual.pt of the public WeGen release",
    ),
    Place(
        "agent",
        ("pytorch_model.bin", "pytorch_model_merged.bin", "stage2_final/*/pytorch_model_merged.bin"),
        "pytorch_model.bin of the public WeGen release",
    ),
    Place("language", (*_TRANSFORMERS, "*.gguf"), ""),
    Place("unet", _in(_UNETS, _DIFFUSERS), "stage1_final/unet of the public WeGen release"),
    Place("vae", _in(_VAES, _DIFFUSERS), "vae/ of stabilityai/stable-diffusion-xl-base-1.0"),
    Place("encoder", _in(("multimodal_encoder",), (*_TRANSFORMERS, "pytorch_model.bin"))),
    Place("single", (*_DIFFUSERS, "Emu2-Gen*.safetensors", "sdxl*vae*.safetensors", "sd_xl*.safetensors")),
)
RELEASE_CONFIGS = (
    Place("unet", _in(_UNETS, ("config.json",))),
    Place("vae", _in(_VAES, ("config.json",))),
    Place("scheduler", _in(("scheduler", "diffusion-decoder/scheduler", f"{_SDXL}/scheduler"), ("scheduler_config.json",))),
)
TOKENIZERS = Place(
    "tokenizer",
    (
        "tokenizer/tokenizer.model",
        "*tokenizer*/tokenizer.model",
        "pretrained/SEED-X/*tokenizer*/tokenizer.model",
        "tokenizer.model",
        "pretrained/*tokenizer*/tokenizer.model",
        "pretrained/meta-llama/*/tokenizer.model",
        "tokenizer.json",
    ),
    "tokenizer.model of meta-llama/Llama-2-7b-chat-hf, or the release's pretrained/SEED-X/cvlm_llama2_tokenizer…",
)
ORIGINS = {
    "vision": RELEASE[0].origin,
    "language": RELEASE[1].origin,
    "projectors": RELEASE[1].origin,
    "unet": RELEASE[3].origin,
    "vae": RELEASE[4].origin,
    "tokenizer": TOKENIZERS.origin,
}
ROOTS = ("", "wegen_mllm_ckpt/")  # the release's own folder may be given, or the one around it

# what a folder is called in reports: the first whose globs all find something
KINDS = (
    ("public WeGen release", (("EVA-CLIP", "visual.pt", "stage1_final", "pretrained", "stage2_final", "pytorch_model.bin"),)),
    ("BLIP3-o", (("diffusion-decoder/unet",),)),
    ("Emu2-Gen", (("multimodal_encoder",), ("unet",))),
    ("diffusers pipeline", (("model_index.json", "unet/config.json", "vae/config.json"),)),
)
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\..+)")


def locate(path: Path, place: Place) -> Path | None:
    return next((hit for glob in place.globs for hit in sorted(path.glob(glob)) if hit.is_file() or not hit.suffix), None)


def kind(path: Path) -> str:
    """What a folder is called in reports."""
    if path.resolve().name == "diffusion-decoder":
        return "BLIP3-o"
    if (path / "config.json").is_file():
        values = read_json(path / "config.json")
        if values.get("model_type") == "llama":
            return "Hugging Face LLaMA"
        if values.get("_class_name"):
            return {"UNet2DConditionModel": "diffusers UNet", "AutoencoderKL": "diffusers VAE"}.get(values["_class_name"], "folder")
    pipeline = path / "model_index.json"
    if pipeline.is_file() and "emuvisualgeneration" in json.dumps(read_json(pipeline)).lower():
        return "Emu2-Gen"  # also without its encoder
    return next((name for name, marks in KINDS if all(any(list(path.glob(g)) for g in globs) for globs in marks)), "folder")


def shards_of(path: Path) -> list[Path]:
    """All files of what one file stands for: itself, the shards of an index, or the siblings of a shard.

    Raises:
        CheckpointError: a shard is not there; the text names all that are missing.
    """
    if path.suffix == ".json":
        listed = read_json(path).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            raise CheckpointError(f"{path}: not an index of weights (no «weight_map» of file names). Copy it again.")
        names = sorted(set(listed.values()))
    elif found := _SHARD.fullmatch(path.name):
        stem, _, count, suffix = found.groups()
        names = [f"{stem}-{i:05d}-of-{count}{suffix}" for i in range(1, int(count) + 1)]
    else:
        return [path]
    missing = [name for name in names if Path(name).name != name or not (path.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{path.parent}: {', '.join(missing[:5])} {'are' if len(missing) > 1 else 'is'} not there; the weights are "
            f"in {len(names)} files, and all are needed. Copy or download the rest."
        )
    return [path.parent / name for name in names]


def llama_config(path: Path) -> dict:
    """Fields of a LanguageConfig from a Hugging Face config.json; empty when it is none of a LLaMA.

    Raises:
        CheckpointError: a LLaMA that is built otherwise: grouped heads, scaled rotary positions, biases.
    """
    values = read_json(path) if path.is_file() else {}
    if values.get("model_type") != "llama":
        return {}
    heads = values.get("num_attention_heads", 0)
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    scaled = rope.get("rope_type", rope.get("type", "default"))
    shared = values.get("num_key_value_heads") or heads
    problems = [f"{shared} key heads for {heads} query heads"] if shared != heads else []
    problems += [f"rotary positions scaled as {scaled!r}"] if scaled != "default" else []
    problems += ["biases in its attention"] if values.get("attention_bias") else []
    if problems:
        raise CheckpointError(
            f"{path}: a LLaMA with {' and '.join(problems)}; WeGen's language model (LLaMA-2-7B) has none of that. This is another model."
        )
    fields = {
        "heads": heads,
        "eps": values.get("rms_norm_eps"),
        "positions": values.get("max_position_embeddings"),
        "rope_theta": values.get("rope_theta", rope.get("rope_theta")),
    }
    return {name: value for name, value in fields.items() if value}
