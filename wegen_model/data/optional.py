"""Libraries that only some of the data tools need: imported when they are used, and asked for by name when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

PACKAGES = {  # module -> what to install, and what for
    "webdataset": ("webdataset", "writes and reads shards"),
    "pyarrow.parquet": ("pyarrow", "reads datasets that come as parquet"),
    "av": ("av", "decodes video"),
    "cv2": ("opencv-python-headless", "finds and follows things without a model"),
    "scenedetect": ("scenedetect", "finds the cuts of a video"),
    "ray": ("ray[data]", "spreads the work over machines"),
    "ray.data": ("ray[data]", "spreads the work over machines"),
    "transformers": ("transformers", "runs captioners, detectors and trackers"),
}


class MissingLibrary(RuntimeError):
    """A library that is asked for by name."""


def need(module: str) -> ModuleType:
    """The module; MissingLibrary, which names the package and its use when it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, use = PACKAGES[module]
        raise MissingLibrary(
            f"{package} is not installed or is broken ({error}); it {use}. "
            f'Install it with: pip install "{package}", or all of the data tools with: pip install "wegen[data]"'
        ) from error
