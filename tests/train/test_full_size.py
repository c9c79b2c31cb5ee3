"""wegen-7b takes one real optimiser step per stage on a CPU: its widths, its presets, random weights, fewer layers.

In float32: few CPUs have bfloat16 arithmetic, and torch's emulation is a hundred times slower in convolutions. Needs 10 GB.
"""

import dataclasses
import time

import numpy as np
import pytest
import torch
from wegen.tests.support import byte_tokenizer
from wegen.wegen_model.chat.tokenizer import Tokenizer, special_tokens
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.config import PRESETS, ModelConfig
from wegen.wegen_model.data.sample import Sample, Turn
from wegen.wegen_model.models.decoder import Decoder
from wegen.wegen_model.models.eva_clip import VisionTower
from wegen.wegen_model.train import presets
from wegen.wegen_model.train.backend import SingleDevice
from wegen.wegen_model.train.flops import decoder_flops, tower_flops, writer_flops
from wegen.wegen_model.train.metrics_logger import memory
from wegen.wegen_model.train.modules import Components, LanguageModule
from wegen.wegen_model.train.stages import make_task
from wegen.wegen_model.train.trainer import LossModule, _step

FULL = PRESETS["wegen-7b"]


def with_depth(config: ModelConfig, layers: int) -> ModelConfig:
    """The same widths with fewer layers in tower and language model, and a UNet of two blocks at SDXL's widths: for trying a step."""
    unet = dict(
        config.unet,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=tuple(config.unet["block_out_channels"][:2]),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1),
        attention_head_dim=tuple(config.unet["attention_head_dim"][:2]),
    )
    return dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, layers=layers),
        language=dataclasses.replace(config.language, layers=layers),
        unet=unet,
    )


class One:
    """A source: one drawing asked for with a reference."""

    def samples(self, step, part, parts, count):
        picture = np.random.default_rng(part).integers(0, 255, (64, 64, 3), np.uint8)
        turns = (Turn("user", "draw <image_1> in the snow", (picture,), (None,)), Turn("assistant", "A fox.", drawn=picture))
        return [Sample("editing", turns, f"{part}-{i}") for i in range(count)]


def parts_of(config, stage: str, folder) -> Components:
    torch.manual_seed(0)
    tower = VisionTower(config.vision)
    decoder = Decoder(config.decoder, config.unet, config.vae, config.scheduler)
    if stage == "visual-decoding":
        return Components(config, tower, decoder)
    writer = LanguageModule(config)
    for p in writer.language.parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, 0, 0.02)
    return Components(config, tower, decoder, writer, Tokenizer.load(byte_tokenizer(folder / "words")))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "release"])
@pytest.mark.parametrize("stage", presets.PRESETS["paper"])
def test_one_step_at_the_widths_of_wegen_7b(stage, preset, tmp_path):
    config = with_depth(FULL, layers=1)
    s = dataclasses.replace(presets.settings(preset, stage), batch=1, size=128, checkpointing=True, precision="no")
    made = make_task(stage, parts_of(config, stage, tmp_path), One(), s)
    backend = SingleDevice(torch.device("cpu"), s.precision)
    made.prepare(backend.device)
    trained = [p for p in made.model.parameters() if p.requires_grad]
    before = [p.detach().flatten()[:1000].clone() for p in trained]
    optimiser = torch.optim.AdamW(trained, s.learning_rate, s.betas, s.eps, s.weight_decay)
    model, optimiser = backend.prepare(LossModule(made), optimiser)
    batch, begun = made.micro_batch(0, 0, 1), time.perf_counter()
    values, work = _step(made, backend, model, optimiser, 0, [batch], tmp_path)
    seconds = time.perf_counter() - begun
    print(
        f"\n{stage} {preset}: {sum(p.numel() for p in trained):,} weights, {seconds:.1f} s, {work['flops'] / seconds / 1e9:.1f} GFLOP/s, "
        f"{work['samples'] / seconds:.2f} samples/s, {work.get('tokens', 0) / seconds:.1f} tokens/s, {memory():.1f} GB at most; {values}"
    )
    assert np.isfinite(values["loss"]) and values["norm"] > 0 and work["flops"] > 1e9
    moved = [not torch.equal(a, p.detach().flatten()[:1000]) for a, p in zip(before, trained)]
    assert sum(moved) > 0.8 * len(moved)  # embeddings of words that the batch lacks only decay


def test_work_is_counted_as_the_papers_count_it():
    """LLaMA-2-7B: 2 FLOP a weight and token, but for the embedding; SDXL's UNet 6 TFLOP at 1024 px; the tower 2 x 4.35 G x 1025."""
    weights = 6_738_415_616 - 32000 * 4096 + 330 * 4096
    assert writer_flops(FULL, 1, 1) == pytest.approx(2 * weights, rel=1e-3)
    assert tower_flops(FULL.vision) == pytest.approx(2 * 4_350_208_256 * 1025, rel=0.1)
    assert 5.5e12 < decoder_flops(FULL, 1024)[0] < 7.5e12


def test_the_reduced_model_has_the_full_one_s_widths():
    small = with_depth(FULL, 1)
    assert (small.language.width, small.vision.width, small.language.vocab_size) == (4096, 1792, 32330)
    assert small.unet["cross_attention_dim"] == 1792 and len(special_tokens(32000)) == 330
    assert model_folder.WEIGHT_FILES["unet"].startswith("unet/")
