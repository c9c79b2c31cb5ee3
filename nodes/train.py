"""WeGen Train Decoder: a folder of pictures -> a LoRA of the decoder. And Decoder LoRA, which puts one on."""

from __future__ import annotations

from pathlib import Path

from . import host
from .host import training
from .sockets import CATEGORY, DECODER, LOSS, MODEL, SEED, own_decoder

FOLDER_AS_WRITTEN = "as written in folder"
ASPECTS = ("squash", "buckets")


class WeGenTrainDecoder:
    """A fine-tune inside the graph."""

    DESCRIPTION = (
        "Teaches the decoder the look of your pictures: trains a LoRA of its UNet, writes it to models/loras, and gives the "
        "decoder with it. Cancel keeps what was learned: queue again to go on."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["train", "lora", "fine-tune", "finetune", "style", "training"]
    RETURN_TYPES = (DECODER, "STRING", "IMAGE", "LORA_MODEL", LOSS, "IMAGE")
    RETURN_NAMES = ("decoder", "lora", "samples", "lora_model", "loss", "strips")
    OUTPUT_TOOLTIPS = (
        "The decoder with the new LoRA, for SDXL Feature Decoder.",
        "The LoRA's file name in models/loras.",
        "Four of your pictures, then the same four as the trained decoder paints them.",
        "The LoRA itself, for ComfyUI's Load LoRA Model and Save LoRA Weights.",
        "The loss over the steps, for Plot Loss Graph.",
        "The previews, the oldest first: the same pictures and seeds each time.",
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
                "alpha": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 1024.0,
                        "step": 0.5,
                        "advanced": True,
                        "tooltip": "The LoRA is multiplied by alpha / rank. 0: alpha is the rank.",
                    },
                ),
                "aspect": (
                    list(ASPECTS),
                    {
                        "default": "squash",
                        "tooltip": "squash: every picture is pressed into the decoder's square. buckets: each is cut to the nearest of a few shapes of as many "
                        "pixels, up to 2:1, and painted in that shape.",
                    },
                ),
                "captions": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "Pictures with a .txt of their name beside them are, half of the time, painted from what the model writes on that text, as "
                        "it will be at work. Texts that it draws as something else are left out.",
                    },
                ),
                "preview_count": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 8,
                        "advanced": True,
                        "tooltip": "Pictures side by side in a preview, each with its seed.",
                    },
                ),
                "save_every": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 1_000_000,
                        "advanced": True,
                        "tooltip": "Steps between LoRAs that are kept beside the last, as NAME-000500. 0 keeps the last alone.",
                    },
                ),
                "choose_folder": (
                    [FOLDER_AS_WRITTEN, *training.folder_choices()],
                    {
                        "default": FOLDER_AS_WRITTEN,
                        "tooltip": "A folder below ComfyUI's input folder, in place of the one that is written.",
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, choose_folder=FOLDER_AS_WRITTEN):
        return True  # a folder that was made since the page was loaded is no error

    @classmethod
    def IS_CHANGED(cls, folder, choose_folder=FOLDER_AS_WRITTEN, **_):
        return training.listing_of(folder if choose_folder == FOLDER_AS_WRITTEN else choose_folder)

    def train(
        self,
        model,
        folder,
        name,
        steps=1000,
        learning_rate=1e-4,
        rank=16,
        batch=1,
        seed=0,
        decoder=None,
        resolution=0,
        preview_every=100,
        alpha=0.0,
        aspect="squash",
        captions=False,
        preview_count=1,
        save_every=0,
        choose_folder=FOLDER_AS_WRITTEN,
    ):
        import torch

        from ..wegen_model.data.image_folder import PictureFolder
        from ..wegen_model.features import check_space
        from ..wegen_model.train import finetune

        painter = own_decoder(decoder if decoder is not None else model)
        if not name.strip() or name != Path(name).name or name.startswith("."):
            raise ValueError(f"name: {name!r} is no file name. Write a word, such as wegen_lora.")
        source = PictureFolder(training.picture_folder(folder if choose_folder == FOLDER_AS_WRITTEN else choose_folder))
        device = training.training_device()
        s = finetune.lora_settings(steps, learning_rate, rank, batch, seed, resolution, device, alpha)
        more = [word for word, on in (("buckets", aspect == "buckets"), ("captions", captions)) if on]
        key = finetune.identity(painter.folder, source.files, s, *more)
        with host.watch(model.runtime) as notes:
            paths, pictures, tokens = finetune.encode_pictures(model, source, s.size or painter.config.decoder.size, aspect == "buckets")
            c = painter.config.decoder
            features = model.features(tokens)
            note = check_space(features, c.space, c.tower, f"the decoder '{painter.name}'", "WeGen Train Decoder, model", width=c.width)
            for text in (note, *(f"{n} cannot be read and was left out ({why})." for n, why in source.skipped.items())):
                if text:
                    model.runtime.warn(text)
            written = finetune.written_on_captions(model, paths, tokens) if captions else {}
            if captions and not written:
                model.runtime.warn("captions: the model draws no picture of the folder from a .txt beside it, so none is used.")
            training.make_room()
            root = training.lora_roots()[0]
            made = finetune.finetune(
                painter.folder,
                painter.config,
                tokens,
                pictures,
                s,
                training.work_folder() / f"{name}-{key}",
                model.runtime,
                device,
                preview_every,
                preview_count=preview_count,
                written=written,
                save_every=save_every,
                saved=lambda step, tensors: finetune.write_lora(root, f"{name}-{step:06d}", tensors, key, painter.config, s),
            )
            path = finetune.write_lora(root, name, made.tensors, key, painter.config, s)
            losses = made.losses
            some = max(1, len(losses) // 5)  # single steps are noisy
            first, last = (sum(row) / some for row in (losses[:some], losses[-some:]))
            text = f"{path.name}: {len(pictures)} pictures, {s.steps} steps, loss {first:.4f} at first, {last:.4f} at last."
            samples = torch.cat([made.shown, made.painted])
            result = (painter.with_lora(path), path.name, samples, made.tensors, {"loss": losses}, made.strips)
            return host.shown(result, notes, text)


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
