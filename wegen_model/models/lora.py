"""Low-rank adapters: W x becomes W x + (alpha / rank) B A x, in the UNet's or the language model's linear layers.

o, i: a layer's outputs and inputs · r rank

Own code (a hook a layer) rather than peft: the base weights stay out of what is wrapped, saved and moved, no package is needed
inside ComfyUI, and layers of another class (ComfyUI's) are adapted alike.

The file is the common one of diffusion trainers, which ComfyUI's LoRA loaders and diffusers read:
`lora_unet_<path with _>.lora_down.weight (r,i)`, `.lora_up.weight (o,r)`, `.alpha`. Language-model layers: `lora_te_…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..fileio import atomic
from ..runtime import is_finite

TARGETS = {
    "unet": ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"),
    "language": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
PREFIX = {"unet": "lora_unet_", "language": "lora_te_"}
NAMES = {"unet": "decoder", "language": "language model"}  # for people


class Adapter(nn.Module):
    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float):
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))  # no change at the start
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype)) * self.scale


class Adapters(nn.Module):
    """Adapters on the target layers of a module, which is frozen. Only they are parameters here."""

    def __init__(self, part: str, base: nn.Module, rank: int, alpha: float | None = None):
        super().__init__()
        self.part, self.rank, self.alpha = part, rank, float(alpha or rank)
        base.requires_grad_(False)
        self.layers = nn.ModuleDict()
        self.alphas: dict[str, float] = {}  # of each layer's adapter; alpha / rank is what it is multiplied by
        for path, layer in base.named_modules():
            weight = getattr(layer, "weight", None)
            if path.endswith(TARGETS[part]) and weight is not None and weight.ndim == 2:
                key = path.replace(".", "_")
                sides = (layer.in_features, layer.out_features)  # a quantized weight has another shape
                self.layers[key] = adapter = Adapter(*sides, min(rank, *sides), self.alpha)
                self.alphas[key] = adapter.scale * adapter.down.shape[0]
                layer.register_forward_hook(_adding(adapter))
        if not self.alphas:
            raise ValueError(f"LoRA: the {part} has none of the layers {', '.join(TARGETS[part])}.")

    def tensors(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What the file holds; `state`: other values of the same parameters (averaged ones)."""
        state = state or self.state_dict()
        out = {}
        for key, alpha in self.alphas.items():
            name = PREFIX[self.part] + key
            out[f"{name}.lora_down.weight"] = state[f"layers.{key}.down"].detach().cpu()
            out[f"{name}.lora_up.weight"] = state[f"layers.{key}.up"].detach().cpu()
            out[f"{name}.alpha"] = torch.tensor(alpha)
        return out


def _adding(adapter: Adapter):
    return lambda layer, inputs, output: output + adapter(inputs[0]).to(output.dtype)


def save_lora(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write an adapter file, beside and renamed. SaveFailed: the disk is full."""
    from safetensors.torch import save_file

    from ..saving import writing

    path = Path(path)
    kept = "Its training is kept: make room, then start the same again; nothing is trained anew."
    with writing("the adapter", path, kept), atomic(path) as part:
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"format": "pt"} | (metadata or {}))
    return path


def read_lora(path: str | Path, space: str = "") -> dict[str, Tensor]:
    """The tensors of an adapter file.

    Raises:
        ValueError: it is damaged or none, or was trained for a decoder of another feature space than `space`.
    """
    return read_lora_and_metadata(path, space)[0]


def read_lora_and_metadata(path: str | Path, space: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """`read_lora`, and what the file says of itself: `wegen_space`, of a subject `wegen_subject`, its name, and `wegen_tokenizer`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"lora: {path} cannot be read ({error}). Choose a LoRA that WeGen Train Decoder wrote.") from error
    if not any(key.endswith(".lora_down.weight") for key in tensors):
        raise ValueError(f"lora: {Path(path).name} holds no LoRA of the names that WeGen writes (lora_unet_….lora_down.weight).")
    if space and meta.get("wegen_space", space) != space:
        raise ValueError(f"lora: {Path(path).name} was trained for the features '{meta['wegen_space']}', this decoder reads '{space}'.")
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not is_finite(tensor):
            raise ValueError(f"lora: {Path(path).name} is damaged: {key} holds NaN or infinity. Copy or train it again.")
    return tensors, meta


def of_part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Those of an adapter file that belong to a part, a key of PREFIX."""
    return {key: value for key, value in tensors.items() if key.startswith(PREFIX[part])}


@torch.no_grad()
def merge(module: nn.Module, part: str, tensors: Mapping[str, Tensor], strength: float = 1.0, name: str = "lora") -> int:
    """Add an adapter file to a module's weights, in float32; returns how many layers changed.

    Raises:
        ValueError: it names layers that the module lacks, or of another shape.
    """
    layers = {path: layer for path, layer in module.named_modules() if getattr(layer, "weight", None) is not None}
    own = {PREFIX[part] + path.replace(".", "_"): layer for path, layer in layers.items()}
    names = sorted({key.rpartition(".lora_")[0] for key in tensors if ".lora_" in key})
    strange = [n for n in names if n not in own]
    if strange or not names:
        raise ValueError(
            f"{name}: made for another model: {len(strange)} of its {len(names)} layers are not in this one"
            f"{f' ({strange[0]})' if strange else ''}."
        )
    for key in names:
        down, up = tensors[f"{key}.lora_down.weight"].float(), tensors[f"{key}.lora_up.weight"].float()
        weight = own[key].weight
        if (up.shape[0], down.shape[1]) != tuple(weight.shape):
            raise ValueError(f"{name}: {key} is for a layer of {up.shape[0]}x{down.shape[1]}, this model's is {tuple(weight.shape)}.")
        if not weight.is_floating_point():
            raise ValueError(
                f"{name}: the {NAMES[part]} is loaded in a quantized precision, to which no LoRA can be added. Load it in another dtype."
            )
        scale = float(tensors.get(f"{key}.alpha", torch.tensor(float(len(down))))) / len(down)
        changed = weight.float() + strength * scale * (up @ down).to(weight.device)
        own[key].weight = nn.Parameter(changed.to(weight.dtype), requires_grad=weight.requires_grad)
    return len(names)
