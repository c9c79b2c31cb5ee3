"""The table of settings: the supplement's Table 2 and the public scripts, and what nonsense is answered with."""

import pytest
from wegen.wegen_model.train.presets import PRESETS, settings, table

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
    assert [PRESETS["paper"][s].condition_dropout for s in PAPER] == [0.1] * 3 and [
        PRESETS["release"][s].condition_dropout for s in PAPER
    ] == [0.0] * 3
    assert [PRESETS["release"][s].unconditional for s in PAPER] == [0.0] * 3
    assert {PRESETS["release"][s].time_ids for s in PAPER} == {"zeros"} and {PRESETS["release"][s].min_lr_ratio for s in PAPER} == {0.05}
    assert PRESETS["paper"]["stage-1"].unconditional > 0


def test_every_preset_holds_in_itself_and_is_printed():
    for preset, stages in PRESETS.items():
        for stage in stages:
            settings(preset, stage)
    text = table()
    assert len({len(line) for line in text.splitlines()}) == 1 and "learning_rate" in text and "0.9,0.999" in text


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
        ("paper", "stage-1", {"condition_dropout": "10"}, "condition_dropout is 10.0: it is a share, from 0 to 1"),
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
