"""The components of a model that a stage trains or keeps frozen: loaded from a model folder, and exported to one.

Trained parts are float32 copies with gradients; frozen ones are in the computation's precision, without. `DecoderModule` and `LanguageModule` are
what the stages train: UNet and feature-to-latent map; language model and projectors.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..chat.tokenizer import Tokenizer
from ..checkpoint import model_folder
from ..config import ModelConfig
from ..models.decoder import Decoder
from ..models.eva_clip import VisionTower
from ..models.llama import Language
from ..models.lora import Adapters, merge, save_lora
from ..models.projectors import Projectors
from ..models.quantization import dequantize_linear

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}
T = TypeVar("T")


def _need(part: T | None, what: str) -> T:
    if part is None:
        raise model_folder.CheckpointError(f"this stage needs the model's {what}, and the model folder has none.")
    return part


class DecoderModule(nn.Module):
    """What is trained: the UNet and its feature-to-latent map."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.unet, self.layout = decoder.unet, decoder.layout


class LanguageModule(nn.Module):
    """Language model and projectors, trained together."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.language = Language(config.language)
        self.projectors = Projectors(config.features, config.language.width)


@dataclass
class Components:
    """The components that a stage works with; stages of the decoder alone have no language model and no tokenizer."""

    config: ModelConfig
    tower: VisionTower | None
    decoder: Decoder | None
    writer: LanguageModule | None = None
    tokenizer: Tokenizer | None = None

    def need_tower(self) -> VisionTower:
        return _need(self.tower, "tower (vision)")

    def need_decoder(self) -> Decoder:
        return _need(self.decoder, "decoder (unet/, vae/, scheduler/)")

    def need_language(self) -> LanguageModule:
        return _need(self.writer, "language model (language/, projectors)")

    def need_tokenizer(self) -> Tokenizer:
        return _need(self.tokenizer, "tokenizer")

    def freeze(self, *modules: nn.Module | None, device: torch.device, dtype: torch.dtype | None) -> None:
        """Move frozen modules to the device."""
        for module in modules:
            if module is not None:
                module.to(device).eval().requires_grad_(False)
                for p in module.parameters():  # diffusers warns when it is given the precision
                    if p.is_floating_point():  # quantized weights keep their bytes
                        p.data = p.data.to(dtype or p.dtype)


def load(
    folder: str | Path,
    stage: str,
    *,
    roots: tuple = (),
    frozen: torch.dtype = torch.float32,
    lora: bool = False,
    decoder: bool = True,
    language: bool = False,
    tower: bool = True,
) -> Components:
    """The components that a stage needs, on the CPU: trained ones in float32, frozen ones in the precision `frozen`.

    Args:
        lora: the UNet, or the language model, is frozen.
        decoder: the language stages need it for the diffusion loss and for sample pictures. language: stages of the decoder need it for
            what the model itself writes. tower: False for language stages whose pictures' features are known.
    Raises:
        CheckpointError: no model folder, or one that lacks a part; it names what is missing. Or what is trained is quantized.
    """
    folder = model_folder.resolve(folder, roots)
    config = model_folder.read_config(folder)
    writing = stage in ("stage-1", "stage-2")
    _check_blocks(folder, writing and not lora)
    out = Components(config, None, None)
    if tower:
        with torch.device("meta"):
            out.tower = VisionTower(config.vision)
        _fill(out.tower, folder, "vision", torch.float32 if stage == "tower" else frozen)
    if stage == "tower":
        out.tokenizer = Tokenizer.load(folder)
        return out
    if not writing or decoder:
        out.decoder = load_decoder(folder, config, torch.float32 if stage == "visual-decoding" and not lora else frozen)
    if writing or language:
        with torch.device("meta"):
            out.writer = LanguageModule(config)
        for part in ("language", "projectors"):
            trained = writing and not (lora and part == "language")
            _fill(getattr(out.writer, part), folder, part, torch.float32 if trained else frozen)
        out.tokenizer = Tokenizer.load(folder)
    return out


def _check_blocks(folder: Path, language_is_trained: bool) -> None:
    """Quantized weights have no gradient: they can be frozen, with a trained adapter on top."""
    kinds = {
        part: sorted({kind for path in model_folder.files(folder, part) for kind in model_folder.stored_kinds(path).values()})
        for part in ("language", "vision")
    }
    if kinds["language"] and language_is_trained:
        raise model_folder.CheckpointError(
            f"{folder.name}: the weights of its language model are quantized ({', '.join(kinds['language'])}), and such weights cannot be trained. "
            "Name the folder of 16-bit weights that it was made from, or train an adapter on top of them: --set lora=16."
        )
    if kinds["vision"]:
        logging.getLogger("wegen").warning(
            "%s: its tower is quantized (%s). What is trained fits the features that this tower makes; for features of the 16-bit tower, "
            "train from a folder of 16-bit weights.",
            folder.name,
            ", ".join(kinds["vision"]),
        )


def load_decoder(folder: str | Path, config: ModelConfig, dtype: torch.dtype = torch.float32) -> Decoder:
    """UNet, VAE and feature-to-latent map of a folder as plain PyTorch layers, copies.

    `dtype`: of UNet and layout map, which an adapter may be trained on; the VAE is float32.

    Raises:
        CheckpointError: a part is absent.
    """
    for part in ("unet", "vae", "scheduler"):
        if not getattr(config, part):
            raise model_folder.CheckpointError(
                f"{Path(folder).name}: no {part}/ with its configuration, so this folder has no decoder to "
                f"train or to look through. It has: {', '.join(model_folder.parts(folder)) or 'nothing'}."
            )
    with torch.device("meta"):
        decoder = Decoder(config.decoder, config.unet, config.vae, config.scheduler)
    for part in ("unet", "vae", "layout"):
        if getattr(decoder, part) is not None:
            _fill(getattr(decoder, part), folder, part, torch.float32 if part == "vae" else dtype)
    return decoder


def _fill(module: nn.Module, folder: str | Path, part: str, dtype: torch.dtype = torch.float32) -> None:
    model_folder.load_into(module, folder, part)
    for owner in module.modules():  # load_into maps the file: copies may be trained, on the disk nothing changes
        for name, p in list(owner._parameters.items()):
            if p is not None:
                learns = p.is_floating_point() and not (part == "projectors" and name in ("mean", "std"))
                own = p.detach().to(dtype if p.is_floating_point() else p.dtype, copy=True)
                owner._parameters[name] = nn.Parameter(own, requires_grad=learns)


def export(
    source: str | Path, target: str | Path, states: dict[str, dict[str, Tensor]], config: ModelConfig, dtype: torch.dtype | None = None
) -> Path:
    """A model folder with trained parts in place of the source's; the rest is copied as it is.

    Args:
        states: part (a key of model_folder.WEIGHT_FILES) -> tensors. dtype: None keeps each part's precision in the source.
    Raises:
        CheckpointError: the target holds something else (model_folder.check_target). SaveFailed: the disk is full.
    """
    from safetensors.torch import save_file

    from ..saving import writing

    source, target = Path(source), Path(target)
    model_folder.check_target(target, {*model_folder.WEIGHT_FILES, "tokenizer"}, source)
    kept = "The checkpoint is kept: make room, or name another --target, and give the same command again; nothing is trained anew."
    with writing("the trained model", target, kept), model_folder.replacing(target) as new:
        shutil.copytree(source, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "*.md"))
        model_folder.write_config(new, config)
        for part, state in states.items():
            old = model_folder.files(new, part)
            stored = dtype or _dtype(old)
            base = new / model_folder.WEIGHT_FILES[part]
            for path in (*old, *base.parent.glob(base.name + "*.index.json")):
                path.unlink()
            path = base.with_name(base.name + ".safetensors")
            path.parent.mkdir(exist_ok=True)
            tensors = {k: (v.to(stored) if stored and v.is_floating_point() else v).detach().cpu().contiguous() for k, v in state.items()}
            save_file(tensors, path, {"format": "pt"})
    return target


def export_adapter(adapters: Adapters, base: nn.Module, weights: dict[str, Tensor], folder: Path, space: str) -> tuple[Path, nn.Module]:
    """Write `lora.safetensors` into the work folder; its path, and the base with the adapter merged into its weights."""
    tensors = adapters.tensors(weights)
    path = save_lora(folder / "lora.safetensors", tensors, {"wegen_space": space})
    merge(dequantize_linear(base, next(p.dtype for p in base.parameters() if p.is_floating_point())), adapters.part, tensors)
    return path, base


def _dtype(paths: list[Path]) -> torch.dtype | None:
    from safetensors import safe_open

    for path in paths:
        with safe_open(path, "pt") as file:
            for key in file.keys():
                if (tensor := file.get_tensor(key)).is_floating_point():  # quantized weights are bytes
                    return tensor.dtype
    return None


def trained_config(config: ModelConfig, time_ids: str | None = None, parallel: bool = False) -> ModelConfig:
    """The configuration after training: size conditioning as the decoder has learned it; `parallel` once it was trained."""
    decoder = dataclasses.replace(config.decoder, time_ids=time_ids) if time_ids else config.decoder
    features = dataclasses.replace(config.features, parallel=config.features.parallel or parallel)
    return dataclasses.replace(config, decoder=decoder, features=features)
