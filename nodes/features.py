"""Features as material: mix, arithmetic, a look at the grid, save and load."""

from __future__ import annotations

import itertools

from . import feature_files, host, ui_messages
from .sockets import CATEGORY, FEATURES


class WeGenMixFeatures:
    """From one picture's features to another's."""

    DESCRIPTION = "Mixes the features of two pictures, everywhere or where a mask is white. The decoder paints the mixture as one."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["mix features", "blend", "interpolate", "slerp", "lerp", "morph", "combine features"]
    RETURN_TYPES = (FEATURES,)
    RETURN_NAMES = ("features",)
    OUTPUT_TOOLTIPS = ("The mixture, for SDXL Feature Decoder, or as a reference for WeGen Chat.",)
    FUNCTION = "mix"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "a": (FEATURES, {"tooltip": "The features that the mixture starts from."}),
                "b": (FEATURES, {"tooltip": "The features that it goes to: of the same model, and as many pictures as a (or one)."}),
                "amount": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": ("How far to go: 0 is a, 1 is b, both unchanged; 0.5 is half way."),
                    },
                ),
                "method": (
                    ["linear", "spherical"],
                    {
                        "default": "linear",
                        "tooltip": (
                            "linear: the numbers are mixed; half way is softer. spherical: each feature turns from one to the other and keeps its "
                            "strength, so half way is as crisp."
                        ),
                    },
                ),
            },
            "optional": {
                "mask": (
                    "MASK",
                    {
                        "tooltip": (
                            "White where b comes in, black where a stays; grey is in between. It is brought to the 8x8 cells of the features. One "
                            "mask for all pictures, or one each. Without it, all cells are mixed."
                        )
                    },
                )
            },
        }

    def mix(self, a, b, amount=0.5, method="linear", mask=None):
        from ..wegen_model.generation import feature_ops

        run = host.runtime()  # no model here: only for what the host shows
        with host.watch(run) as notes:
            shares = None if mask is None else feature_ops.cell_shares(mask, a.grid)
            if shares is not None and not shares.any():
                run.warn("mask is all black: the result is a, unchanged. Paint white where b should come in.")
            mixed = feature_ops.mix(a, b, amount, method, shares, run.warn)
            return host.shown((mixed,), notes, ui={"wegen_features": ui_messages.colours(mixed)})


class WeGenFeatureArithmetic:
    """a - b + c."""

    DESCRIPTION = "Takes what is in b away from a and puts in what is in c: a - b + c, number by number."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["feature arithmetic", "vector arithmetic", "analogy", "add features", "subtract features", "difference"]
    RETURN_TYPES = (FEATURES,)
    RETURN_NAMES = ("features",)
    OUTPUT_TOOLTIPS = ("a - b + c, for SDXL Feature Decoder, or as a reference for WeGen Chat.",)
    FUNCTION = "calculate"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "a": (FEATURES, {"tooltip": "What to start from, for example a cat on blue."}),
                "b": (FEATURES, {"tooltip": "What to take away, for example an empty blue picture."}),
                "c": (FEATURES, {"tooltip": "What to put in, for example an empty red picture. All three must be of the same model."}),
                "amount": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": -4.0,
                        "max": 4.0,
                        "step": 0.05,
                        "tooltip": (
                            "How much of the difference c - b is added to a: 0 leaves a as it is, 1 is a - b + c, negative goes the other way."
                        ),
                    },
                ),
            }
        }

    def calculate(self, a, b, c, amount=1.0):
        from ..wegen_model.generation import feature_ops

        run = host.runtime()
        with host.watch(run) as notes:
            made = feature_ops.arithmetic(a, b, c, amount, run.warn)
            return host.shown((made,), notes, ui={"wegen_features": ui_messages.colours(made)})


class WeGenPreviewFeatures:
    """The 8x8 grid as colours."""

    DESCRIPTION = (
        "Shows the grid of features as colours: the three directions in which they differ most, as red, green and blue. Alike "
        "cells have alike colours. For a painted picture use SDXL Feature Decoder."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["preview features", "pca", "principal components", "show features", "feature map", "visualize"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("preview",)
    OUTPUT_TOOLTIPS = ("One picture each, a flat square a feature; the batch is coloured together, for comparing. For Preview Image.",)
    FUNCTION = "preview"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "features": (FEATURES, {"tooltip": "Any features: encoded, written, mixed or loaded."}),
                "size": ("INT", {"default": 256, "min": 8, "max": 4096, "step": 8, "tooltip": "Pixels along each side of the preview."}),
            }
        }

    def preview(self, features, size=256):
        from ..wegen_model.generation import feature_ops

        picture, held = feature_ops.portrait(features, size)
        rows, columns = features.grid
        width = features.tokens.shape[-1]
        text = (
            f"{len(features)} x {rows}x{columns} features of {width} numbers, space {features.space}. The three colours "
            f"hold {held:.0%} of their variance."
        )
        return host.shown((picture,), [], text)


class WeGenSaveFeatures:
    """Features to a file."""

    DESCRIPTION = "Saves features as a safetensors file in the output folder, a whole batch in one. Load WeGen Features reads it."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["save features", "store features", "write features", "export features"]
    RETURN_TYPES = ()
    RETURN_NAMES = ()
    OUTPUT_TOOLTIPS = ()
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "features": (FEATURES, {"tooltip": "What to save; space, tower and grid are saved with them."}),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "wegen/features",
                        "tooltip": ("Name in the output folder; a number is added. Subfolders and %year%, %month% … as for Save Image."),
                    },
                ),
            },
            "hidden": {"prompt": "PROMPT", **feature_files.HIDDEN},
        }

    def save(self, features, filename_prefix="wegen/features", prompt=None, folders=None):
        from ..wegen_model.features import save_features
        from ..wegen_model.fileio import write_new
        from ..wegen_model.workflow.standins import fill_prefix, next_place

        features.check_finite("features")
        root = feature_files.folders_of(folders)["output"][0]
        folder, name, number = next_place(root, fill_prefix(filename_prefix, *features.grid[::-1], prompt))
        paths = (folder / f"{name}_{n:05}_{feature_files.SUFFIX}" for n in itertools.count(number))
        path = write_new(paths, lambda part: save_features(features, part))
        host.show(f"Saved {path.relative_to(root).as_posix()} in the output folder.")
        entry = {"filename": path.name, "subfolder": folder.relative_to(root).as_posix(), "type": "output"}
        return {"ui": {"wegen_files": [entry]}, "result": ()}


class WeGenLoadFeatures:
    """Features from a file."""

    DESCRIPTION = "Loads features that Save WeGen Features or `wegen encode` wrote, from the input or the output folder."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["load features", "read features", "import features", "open features"]
    RETURN_TYPES = (FEATURES,)
    RETURN_NAMES = ("features",)
    OUTPUT_TOOLTIPS = ("The features as they were saved, bit for bit.",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "file": (
                    feature_files.list_features(feature_files.folders_of()),
                    {
                        "tooltip": (
                            "A features file of the input folder, or of the output folder (marked [output]). Press R to see new ones."
                        )
                    },
                )
            },
            "hidden": feature_files.HIDDEN,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file, folders=None):
        if file is None:  # linked: known only when it runs
            return True
        try:
            feature_files.find_features(file, feature_files.folders_of(folders))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, file, folders=None):
        try:
            return feature_files.digest(feature_files.find_features(file, feature_files.folders_of(folders)))
        except (ValueError, OSError) as error:
            return str(error)

    def load(self, file, folders=None):
        from ..wegen_model.features import load_features

        features = load_features(feature_files.find_features(file, feature_files.folders_of(folders)))
        features.check_finite(file)
        return host.shown((features,), [], ui={"wegen_features": ui_messages.colours(features)})
