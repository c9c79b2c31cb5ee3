"""WeGen Train Subject: a handful of pictures of one thing -> a LoRA of the language model. And WeGen Model LoRA, which puts one on."""

from __future__ import annotations

from . import host
from .host import training
from .sockets import CATEGORY, LOSS, MODEL, SEED


class WeGenTrainSubject:
    """A new thing for the model, inside the graph."""

    DESCRIPTION = (
        "Teaches the model one thing of yours, by a name that you choose: trains a LoRA of its language model on 3 to 8 pictures, writes it to "
        "models/loras, and gives the model with it, which then draws «a photo of mochi on a red background». Cancel keeps what was "
        "learned: queue again to go on."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["train", "lora", "dreambooth", "subject", "character", "my cat", "training"]
    RETURN_TYPES = (MODEL, "STRING", "IMAGE", LOSS)
    RETURN_NAMES = ("model", "lora", "samples", "loss")
    OUTPUT_TOOLTIPS = (
        "The model with the new LoRA, for every node that takes a model.",
        "The LoRA's file name in models/loras, for WeGen Model LoRA.",
        "The first of your pictures, as the model sees it, then four drawings by its name.",
        "The loss over the steps, for Plot Loss Graph.",
    )
    FUNCTION = "train"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (MODEL, {"tooltip": "From Load WeGen Model."}),
                "folder": (
                    training.folder_choices(),
                    {
                        "tooltip": "A folder of pictures of the thing, below ComfyUI's input folder: 3 to 8, each showing it alone. Cut-outs with "
                        "transparency, or pictures with a plain background, can be put on other backgrounds; others are learned as they are. Nothing is "
                        "read from it while images is connected."
                    },
                ),
                "subject": (
                    "STRING",
                    {"default": "mochi", "tooltip": "The name that you will call it by. A word that the model does not know."},
                ),
                "steps": (
                    "INT",
                    {
                        "default": 600,
                        "min": 10,
                        "max": 100_000,
                        "tooltip": "Training steps. 400 to 1000; too many, and other things suffer.",
                    },
                ),
                "learning_rate": (
                    "FLOAT",
                    {
                        "default": 2e-3,
                        "min": 1e-7,
                        "max": 1e-1,
                        "step": 1e-7,
                        "round": 1e-7,
                        "tooltip": "How far a step goes. For models of billions of weights a twentieth of it.",
                    },
                ),
                "rank": ("INT", {"default": 16, "min": 1, "max": 512, "tooltip": "How much the LoRA can hold; its file grows with it."}),
                "seed": ("INT", {**SEED, "control_after_generate": False, "tooltip": "Order of the samples, and the LoRA's start."}),
            },
            "optional": {
                "images": ("IMAGE", {"tooltip": "Pictures of the thing, in place of a folder's."}),
                "kind": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "A word that the model knows and that says what it is, such as cat. Empty: the model's own things stand in for it.",
                    },
                ),
                "preview_every": ("INT", {"default": 50, "min": 0, "max": 100_000, "tooltip": "Steps between previews. 0 shows none."}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, folder):
        return True  # a folder that was made since the page was loaded is no error

    @classmethod
    def IS_CHANGED(cls, folder="", images=None, **_):
        return training.listing_of(folder)

    def train(self, model, folder, subject, steps=600, learning_rate=2e-3, rank=16, seed=0, images=None, kind="", preview_every=50):
        import torch

        from ..wegen_model.train import subject as subjects

        device = training.training_device()
        s = subjects.subject_settings(model.config, device, steps=steps, learning_rate=learning_rate, lora=rank, seed=seed % 2**31)
        with host.watch(model.runtime) as notes:
            if images is not None:
                pictures = [picture.float().cpu().clone() for picture in images]
            else:
                pictures = subjects.read_pictures(training.picture_folder(folder), model.runtime.warn)
            made = subjects.train_subject(
                model, pictures, subject, s, training.work_folder(), kind=kind.strip(), device=device, preview_every=preview_every
            )
            path = subjects.write_subject(training.lora_roots()[0], made, model, s)
            learned = model.with_lora(path)
            with torch.no_grad():
                samples = subjects.sheet(learned, made, pictures)
            losses = list(made.losses.values())
            text = f"{path.name}: «{made.name}» from {len(pictures)} pictures, {s.steps} steps, loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last."
            return host.shown((learned, path.name, samples, {"loss": losses}), notes, text)


class WeGenModelLora:
    """A LoRA on a model."""

    DESCRIPTION = (
        "Adds a LoRA to a model: what WeGen Train Subject taught its language model, or what WeGen Train Decoder taught its decoder. "
        "Place it behind Load WeGen Model; several may follow one another."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["lora", "load lora", "model lora", "subject", "character", "adapter"]
    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The model with the LoRA.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (MODEL, {"tooltip": "From Load WeGen Model."}),
                "lora": (training.list_loras(), {"tooltip": "A file in models/loras."}),
                "strength": ("FLOAT", {"default": 1.0, "min": -4.0, "max": 4.0, "step": 0.05, "tooltip": "1 is as trained, 0 is off."}),
            }
        }

    def apply(self, model, lora, strength=1.0):
        return (model.with_lora(training.find_lora(lora), strength),)
