"""Example Picture: the small pictures that the example workflows begin with."""

from __future__ import annotations

from pathlib import Path

from . import feature_files
from .sockets import CATEGORY

FOLDER = Path(__file__).parent.parent / "workflows" / "pictures"


class WeGenExamplePicture:
    """A picture that comes with the pack, so that a workflow runs at once."""

    DESCRIPTION = "A small picture that comes with WeGen, for trying a workflow at once. Put Load Image in its place for your own."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["example picture", "sample image", "demo picture", "test image"]
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "mask")
    OUTPUT_TOOLTIPS = ("The picture, 128 pixels square.", "White where the picture is transparent, as from Load Image.")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        names = sorted(path.stem for path in FOLDER.glob("*.png"))
        return {
            "required": {
                "picture": (
                    names,
                    {
                        "default": names[0] if names else "",
                        "tooltip": ("Which picture. They are drawn from open art (see NOTICE), the way the bundled miniature knows it."),
                    },
                )
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, picture):
        return True if picture is None or picture in cls.INPUT_TYPES()["required"]["picture"][0] else _lacking(picture)

    @classmethod
    def IS_CHANGED(cls, picture):
        path = FOLDER / f"{picture}.png"
        return feature_files.digest(path) if path.is_file() else str(picture)

    def load(self, picture):
        from ..wegen_model.images import read_frames

        if self.VALIDATE_INPUTS(picture) is not True:
            raise ValueError(_lacking(picture))
        return read_frames(FOLDER / f"{picture}.png")


def _lacking(picture) -> str:
    names = ", ".join(sorted(path.stem for path in FOLDER.glob("*.png")))
    return f"there is no example picture '{picture}'. Choose one of: {names}; or put Load Image in its place."
