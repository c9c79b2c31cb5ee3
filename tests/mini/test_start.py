"""Going on from a smaller miniature: its layers move up, and the new first one starts out copying what it is shown."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F
from wegen.tests.mini.test_recipe import shop  # noqa: F401 - a fixture
from wegen.wegen_model.checkpoint.folder import CheckpointError
from wegen.wegen_model.language import rotary
from wegen.wegen_model.mini import copier
from wegen.wegen_model.mini.dialogue import Writer, init_writer
from wegen.wegen_model.mini.start import load_writer, new_layers
from wegen.wegen_model.mini.watch import Watch


@pytest.fixture(scope="module")
def folder(shop):  # noqa: F811
    return shop.export(shop.folder / "start")


def taller(config, by: int):
    return dataclasses.replace(config, language=dataclasses.replace(config.language, layers=config.language.layers + by))


def test_a_taller_writer_takes_the_layers_of_a_smaller_one_behind_its_own(shop, folder):  # noqa: F811
    writer, small = Writer(taller(shop.config, 1)), shop.writer().language.model
    load_writer(folder, writer, shop.folder / "tokenizer")
    for mine, theirs in zip(writer.language.model.layers[1:], small.layers, strict=True):
        assert torch.allclose(mine.mlp.up_proj.weight, theirs.mlp.up_proj.weight, atol=1e-3)  # stored in float16
    assert new_layers(folder, writer) == 1
    with pytest.raises(CheckpointError, match="1 more layers than this recipe's. Start from a smaller one"):
        new_layers(folder, Writer(taller(shop.config, -1)))


def test_the_new_layer_copies_each_slot_of_what_was_shown(shop):  # noqa: F811
    """What the layer adds before slot i of the picture to write reads, through the feature head, as slot i of the one picture shown."""
    torch.manual_seed(0)
    writer, n = Writer(shop.config), shop.config.features.count
    scenes = shop.features[: len(shop.pool.scenes)].float()
    init_writer(writer, shop.tokenizer, scenes.mean((0, 1)), scenes.std().expand(scenes.shape[-1]))
    copier.init_copier(writer, shop.pool, shop.tokenizer, shop.features)
    plans = [p for p in copier.plans(shop.pool, shop.tokenizer, 1024)
             if [written for *_, written in p.pictures] == [False, True]]  # one shown, one written
    batch = copier.collate(plans[:8])
    true = writer.projectors.normalise(shop.features[batch.rows].float())
    with torch.no_grad():
        x = copier.embed(writer.language, writer.projectors, batch, true)
        c = shop.config.language
        angles = rotary(torch.arange(x.shape[1]).expand(len(x), -1), c.width // c.heads, c.rope_theta)
        layer = writer.language.model.layers[0]
        added = layer(x, 0, None, None, angles, None) - x
    likeness = []
    for (b, start), written, shown in zip(batch.place.tolist(), batch.written.tolist(), [None, *true]):
        if written:
            read = writer.projectors.predict(added[b, start - 1 : start + n - 1]) / copier.LOUDNESS
            likeness.append(F.cosine_similarity(read, shown, dim=-1).mean())
    assert torch.stack(likeness).mean() > 0.8


def test_watching_reports_rolled_out_errors_and_writes_a_sheet(shop, tmp_path):  # noqa: F811
    watch = Watch(shop.tower, shop.decoder()[0], shop.config, shop.tokenizer, shop.art, each=1, tasks=("text", "name"))
    numbers = watch(shop.writer(), 7, tmp_path)
    assert set(numbers) == {"rolled", "rolled_parallel", "rolled_text"} and all(v > 0 for v in numbers.values())
    assert (tmp_path / "sample-000007.png").stat().st_size > 1000
