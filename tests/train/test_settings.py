"""The table of settings: the supplement's Table 2 and the public scripts, and what nonsense is answered with."""

import dataclasses
import sys

import numpy as np
import pytest
from PIL import Image
from wegen.tests.support import tiny_model
from wegen.wegen_model.data.image_folder import PictureFolder
from wegen.wegen_model.train.presets import LEGEND, PRESETS, PUBLISHED, SCRIPTED, settings, table
from wegen.wegen_model.train.run import run_stage
from wegen.wegen_model.train.settings import READS, STAGES, Settings
from wegen.wegen_model.train.stages import make_task

# the supplement's Table 2: betas, eps, peak, clip, steps, warm-up, batch
PAPER = {
    "visual-decoding": ((0.9, 0.999), 1e-8, 5e-4, 1.0, 5_000, 1000, 4096),
    "stage-1": ((0.9, 0.95), 1e-6, 5e-4, 5.0, 15_000, 1000, 2048),
    "stage-2": ((0.9, 0.95), 1e-6, 1e-4, 5.0, 5_000, 1000, 2048),
}
# the public scripts, on their 128 devices
RELEASE = {
    "visual-decoding": ((0.9, 0.999), 1e-6, 1e-4, 1.0, 160_000, 2000, 1024),
    "stage-1": ((0.9, 0.95), 1e-6, 5e-4, 1.0, 30_000, 1000, 2048),
    "stage-2": ((0.9, 0.95), 1e-6, 5e-4, 1.0, 30_000, 1000, 2048),
}


@pytest.mark.parametrize("preset, rows", [("paper", PAPER), ("release", RELEASE)])
def test_presets_are_the_published_ones(preset, rows):
    for stage, row in rows.items():
        s = PRESETS[preset][stage]
        assert (s.betas, s.eps, s.learning_rate, s.clip, s.steps, s.warmup, s.batch) == row
        assert s.precision == "bf16" and s.checkpointing and s.gamma == 5
    assert PRESETS["paper"]["visual-decoding"].condition_dropout == 0.1 and PRESETS["release"]["visual-decoding"].condition_dropout == 0.0
    assert [PRESETS[p][s].unconditional for p in ("paper", "release") for s in PAPER] == [0.0] * 6
    assert {PRESETS["release"][s].time_ids for s in PAPER} == {"zeros"} and {PRESETS["release"][s].min_lr_ratio for s in PAPER} == {0.05}


def test_the_paper_is_the_supplement_and_where_that_is_silent_the_scripts():
    """Nothing of our own is in either: what neither source names is off, or only says how often to write."""
    for stage in PAPER:
        paper, release = PRESETS["paper"][stage], PRESETS["release"][stage]
        other = {
            f.name for f in dataclasses.fields(Settings) if f.name in READS[stage] and getattr(paper, f.name) != getattr(release, f.name)
        }
        assert other <= {*PUBLISHED[stage], "save_every"}
        own = {n for n in READS[stage] - {*PUBLISHED[stage], *SCRIPTED, "seed", "log_every", "own_count", "cache_gb", "optimizer"}}
        off = {n for n in own if not n.startswith("feedback_own_") and n != "keep_caption_prob"}
        assert {n for n in off if getattr(paper, n)} == set()


def test_every_preset_holds_in_itself_and_is_printed():
    for preset, stages in PRESETS.items():
        for stage in stages:
            settings(preset, stage)
    text = table()
    assert len({len(line) for line in text.splitlines()}) == 1 and "learning_rate" in text and "0.9,0.999" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[2:]}
    assert rows["weight_decay"][:4] == ["0.01*", "0.05*", "0.05*", "0.01"] and rows["learning_rate"][:3] == ["0.0005", "0.0005", "0.0001"]
    assert rows["condition_dropout"][:6] == ["0.1", "-", "-", "0", "-", "-"]  # the language stages drop nothing
    assert rows["time_ids"][:3] == ["zeros*"] * 3 and "public scripts" in LEGEND


class Traced(Settings):
    """Notes which settings code of the package reads; dataclasses' own copying does not count."""

    seen: set = set()

    def __getattribute__(self, name):
        if not name.startswith("_") and name in Settings.__dataclass_fields__:
            if sys._getframe(1).f_globals["__name__"] not in ("dataclasses", make_task.__module__):  # to copy and to refuse is not to read
                Traced.seen.add(name)
        return super().__getattribute__(name)


VARIANTS = {
    "tower": [{}],
    "vae": [{}],
    "visual-decoding": [{"lora": 2}, {"own_features": 0.5, "condition_noise": 0.5}, {"cache": True}],
    "stage-1": [{"lora": 2}, {"feedback_own": 1.0, "feedback_noise": 0.5, "feedback_own_batches": 1.0}, {"cache": True}],
    "stage-2": [{"lora": 2}, {"feedback_own": 1.0, "feedback_noise": 0.5, "feedback_own_batches": 1.0}, {"cache": True}],
    "vae-decoder": [{"own_latents": 0.5}, {"cache": True}],
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_what_it_declares_and_nothing_else(stage, tmp_path):
    """Two steps of each, with every part switched on, noting which fields are asked for."""
    tiny_model(tmp_path / "tiny")
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "pictures" / f"{i}.png")
        (tmp_path / "pictures" / f"{i}.txt").write_text("a fox")
    Traced.seen = set()
    for k, more in enumerate(VARIANTS[stage]):
        row = dict(vars(PRESETS["mini"].get(stage) or PRESETS["miniature"][stage]))
        row |= {"steps": 2, "warmup": 1, "batch": 2, "own_count": 2, "ema": 0.9, "cache": False, "own_latents": 0.0} | more
        run_stage(stage, Traced(**row), tmp_path / "tiny", PictureFolder(tmp_path / "pictures", keyed=row["cache"]), tmp_path / str(k))
    assert Traced.seen == set(READS[stage])


def test_a_setting_that_a_stage_does_not_read_is_refused():
    with pytest.raises(ValueError, match="--set condition_dropout=0: stage-1 does not read it; it is for visual-decoding"):
        settings("paper", "stage-1", {"condition_dropout": "0"})
    with pytest.raises(ValueError, match="--set parallel=0.5: visual-decoding does not read it; it is for stage-1, stage-2"):
        settings("mini", "visual-decoding", {"parallel": "0.5"})


def test_changes_are_read_as_their_kind():
    s = settings("paper", "stage-1", {"steps": "20_000", "betas": "0.8,0.99", "checkpointing": "no", "precision": "fp16", "clip": "0"})
    assert (s.steps, s.betas, s.checkpointing, s.precision, s.clip) == (20_000, (0.8, 0.99), False, "fp16", 0.0)


@pytest.mark.parametrize(
    "preset, stage, change, error",
    [
        ("papre", "stage-1", {}, "preset 'papre': choose paper, release, mini"),
        ("paper", "stage-3", {}, "stage 'stage-3': choose tower, vae, visual-decoding, stage-1, stage-2, vae-decoder"),
        ("paper", "tower", {}, "preset 'paper' has no stage 'tower'; it is for models made from nothing: --preset miniature"),
        ("paper", "stage-1", {"drop": "0.1"}, "--set drop: this setting is called condition_dropout now"),
        ("paper", "stage-1", {"learning_rte": "1"}, r"no such setting \(did you mean learning_rate\?\)"),
        ("paper", "stage-1", {"zzz": "1"}, "no such setting. Settings: steps, batch"),
        ("paper", "stage-1", {"steps": "many"}, "steps is a whole number .now 15000."),
        ("paper", "stage-1", {"steps": "-5"}, "steps is -5: it cannot be negative"),
        ("paper", "stage-1", {"steps": "0"}, "steps is 0: it must be above 0"),
        ("paper", "stage-1", {"learning_rate": "nan"}, "learning_rate is nan: it must be a finite number"),
        ("paper", "stage-1", {"learning_rate": "12"}, "learning_rate is 12.0: AdamW's are below 1"),
        ("paper", "stage-1", {"betas": "0.9"}, "betas is two numbers"),
        ("paper", "stage-1", {"betas": "0.9,1.5"}, "both must be at least 0 and below 1"),
        ("paper", "visual-decoding", {"condition_dropout": "10"}, "condition_dropout is 10.0: it is a share, from 0 to 1"),
        ("paper", "stage-1", {"precision": "int3"}, "precision is 'int3': choose bf16, fp16, no"),
        ("paper", "stage-1", {"time_ids": "size!"}, "time_ids is 'size!': choose size, zeros"),
        ("paper", "stage-1", {"steps": "500"}, "warmup is 1000 of 500 steps: the rate would never reach its peak"),
        ("paper", "stage-1", {"size": "1001"}, "size is 1001: the side of a painted picture is a multiple of 8"),
        ("paper", "stage-1", {"ema": "1"}, "ema is 1.0: a decay below 1"),
        ("paper", "stage-1", {"checkpointing": "perhaps"}, "checkpointing is true or false"),
    ],
)
def test_nonsense_is_answered_clearly(preset, stage, change, error):
    with pytest.raises(ValueError, match=error):
        settings(preset, stage, change)
