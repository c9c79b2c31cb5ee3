"""A full-size tower as a file of holes: inspected without reading its weights, converted within the memory bound."""

import shutil

import pytest
import torch
from wegen.tests import big_files
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.checkpoint.convert import skeleton
from wegen.wegen_model.config import PRESETS

GIB = 2**30


@pytest.mark.slow
def test_memory_of_a_full_size_conversion(tmp_path):
    if shutil.disk_usage(tmp_path).free < 12 * GIB:
        pytest.skip("12 GiB of free disk are needed")
    shapes = {k: tuple(v.shape) for k, v in skeleton("vision", PRESETS["wegen-7b"]).state_dict().items()}
    source = tmp_path / "visual.pt"
    with torch.serialization.skip_data():
        torch.save({k: torch.empty(shape, dtype=torch.bfloat16) for k, shape in shapes.items()}, source)
    assert source.stat().st_size > 8 * GIB > 1000 * big_files.written_bytes(tmp_path)  # holes
    seen = big_files.measure("inspect", source)
    assert seen["peak"] - seen["before"] < 0.3 * GIB
    shard = GIB
    got = big_files.measure("convert", source, tmp_path / "model", shard=shard)
    written = model_folder.files(tmp_path / "model", "vision")
    assert len(written) == 9 and max(p.stat().st_size for p in written) <= shard + 2**20
    assert got["peak"] < 1.5 * shard + GIB, f"{got['peak'] / GIB:.2f} GiB"
    shutil.rmtree(tmp_path / "model")
