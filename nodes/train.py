"""WeGen Train Decoder: a folder of pictures -> a LoRA of the decoder. And Decoder LoRA, which puts one on."""

from __future__ import annotations

from pathlib import Path

from . import host
from .host import training
from .sockets import CATEGORY, DECODER, MODEL, SEED, own_decoder


class WeGenTrainDecoder:
    """A fine-tune inside the graph."""

    DESCRIPTION = (
        "Teaches the decoder the look of your pictures: trains a LoRA of its UNet, writes it to models/loras, and gives the "
        "decoder with it. Cancel keeps what was learned: queue again to go on."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["train", "lora", "fine-tune", "finetune", "style", "training"]
    RETURN_TYPES = (DECODER, "STRING", "IMAGE")
    RETURN_NAMES = ("decoder", "lora", "samples")
    OUTPUT_TOOLTIPS = (
        "The decoder with the new LoRA, for SDXL Feature Decoder.",
        "The LoRA's file name in models/loras.",
        "Four of your pictures, then the same four as the trained decoder paints them.",
    )
    FUNCTION = "train"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (MODEL, {"tooltip": "From Load WeGen Model: its tower encodes your pictures, its decoder is trained."}),
                "folder": ("STRING", {"default": "my_pictures", "tooltip": "A folder of pictures below ComfyUI's input folder."}),
                "name": ("STRING", {"default": "wegen_lora", "tooltip": "The LoRA's file name, without its ending."}),
                "steps": (
                    "INT",
                    {
                        "default": 1000,
                        "min": 10,
                        "max": 1_000_000,
                        "tooltip": ("Training steps. For 200 pictures 1000 to 3000; too many, and the decoder only knows your pictures."),
                    },
                ),
                "learning_rate": (
                    "FLOAT",
                    {
                        "default": 1e-4,
                        "min": 1e-7,
                        "max": 1e-1,
                        "step": 1e-7,
                        "round": 1e-7,
                        "tooltip": ("How far a step goes. If colours burn or the loss jumps, a third of it."),
                    },
                ),
                "rank": ("INT", {"default": 16, "min": 1, "max": 512, "tooltip": "How much the LoRA can hold; its file grows with it."}),
                "batch": (
                    "INT",
                    {"default": 1, "min": 1, "max": 256, "tooltip": ("Pictures of one step. More is steadier and takes more memory.")},
                ),
                "seed": (
                    "INT",
                    {**SEED, "control_after_generate": False, "tooltip": "Order of the pictures, noise, and the LoRA's start."},
                ),
            },
            "optional": {
                "decoder": (DECODER, {"tooltip": "Train this decoder instead of the model's own. It must read the model's features."}),
                "resolution": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 4096,
                        "step": 8,
                        "tooltip": (
                            "Side of the pictures in pixels; 0 is what the decoder was made for. Less trains faster and with less memory."
                        ),
                    },
                ),
                "preview_every": (
                    "INT",
                    {
                        "default": 100,
                        "min": 0,
                        "max": 100_000,
                        "tooltip": ("Steps between previews, painted by the decoder as it is by then. 0 shows none."),
                    },
                ),
            },
        }

    @classmethod
    def IS_CHANGED(cls, folder, **_):
        try:
            place = training.picture_folder(folder)
        except ValueError:
            return folder
        return str(sorted((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in place.rglob("*") if p.is_file()))

    def train(
        self, model, folder, name, steps=1000, learning_rate=1e-4, rank=16, batch=1, seed=0, decoder=None, resolution=0, preview_every=100
    ):
        import torch

        from ..wegen_model.data.image_folder import PictureFolder
        from ..wegen_model.features import check_space
        from ..wegen_model.images import PictureError, read, to_float
        from ..wegen_model.progress import ProgressEvent
        from ..wegen_model.train import finetune

        painter = own_decoder(decoder if decoder is not None else model)
        if not name.strip() or name != Path(name).name or name.startswith("."):
            raise ValueError(f"name: {name!r} is no file name. Write a word, such as wegen_lora.")
        source = PictureFolder(training.picture_folder(folder))
        paths = source.files
        device = training.training_device()
        s = finetune.lora_settings(steps, learning_rate, rank, batch, seed, resolution, device)
        key = finetune.identity(painter.folder, paths, s)
        with host.watch(model.runtime) as notes:
            pictures, tokens = [], []
            enough = 2 * max(
                s.size or painter.config.decoder.size, model.config.vision.image_size
            )  # larger photos are reduced as they are read
            for i, path in enumerate(paths):
                try:
                    picture = read(path, side=enough)
                except (OSError, PictureError) as error:  # a good header, a broken body
                    source.skipped[path.name] = error.reason if isinstance(error, PictureError) else str(error)
                    continue
                pictures.append(picture)
                tokens.append(model.encode(to_float(picture)[None], where=f"WeGen Train Decoder, {path.name}"))
                model.runtime.tick(ProgressEvent("tower", i + 1, len(paths)))
            if not pictures:
                raise ValueError(f"folder: none of the {len(paths)} pictures can be read ({next(iter(source.skipped.values()))}).")
            c = painter.config.decoder
            note = check_space(tokens[0], c.space, c.tower, f"the decoder '{painter.name}'", "WeGen Train Decoder, model", width=c.width)
            for text in (note, *(f"{n} cannot be read and was left out ({why})." for n, why in source.skipped.items())):
                if text:
                    model.runtime.warn(text)
            training.make_room()
            tensors, losses, painted = finetune.finetune(
                painter.folder,
                painter.config,
                torch.cat([f.tokens for f in tokens]),
                pictures,
                s,
                training.work_folder() / f"{name}-{key}",
                model.runtime,
                device,
                preview_every,
            )
            path = finetune.write_lora(training.lora_roots()[0], name, tensors, key, painter.config, s)
            size = painted.shape[1]
            shown = torch.stack([finetune.target_pixels(p, size) for p in pictures[: len(painted)]]).float() / 255
            some = max(1, len(losses) // 5)  # single steps are noisy
            first, last = (sum(row) / some for row in (losses[:some], losses[-some:]))
            text = f"{path.name}: {len(pictures)} pictures, {s.steps} steps, loss {first:.4f} at first, {last:.4f} at last."
            return host.shown((painter.with_lora(path), path.name, torch.cat([shown, painted])), notes, text)


class WeGenDecoderLora:
    """A LoRA on a decoder."""

    DESCRIPTION = "Adds a LoRA that WeGen Train Decoder wrote to a decoder. Several may follow one another."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["lora", "load lora", "decoder lora", "style", "adapter"]
    RETURN_TYPES = (DECODER,)
    RETURN_NAMES = ("decoder",)
    OUTPUT_TOOLTIPS = ("The decoder with the LoRA.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "decoder": (f"{DECODER},{MODEL}", {"tooltip": "From Load WeGen Decoder, or the model, whose own decoder is used then."}),
                "lora": (training.list_loras(), {"tooltip": "A file in models/loras."}),
                "strength": ("FLOAT", {"default": 1.0, "min": -4.0, "max": 4.0, "step": 0.05, "tooltip": "1 is as trained, 0 is off."}),
            }
        }

    def apply(self, decoder, lora, strength=1.0):
        return (own_decoder(decoder).with_lora(training.find_lora(lora), strength),)
