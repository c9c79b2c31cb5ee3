"""Progress as a value."""

import pytest
from wegen.wegen_model.progress import LABELS, ProgressEvent
from wegen.wegen_model.runtime import Runtime


class Seen(Runtime):
    def __init__(self):
        super().__init__("cpu")
        self.events = []

    def tick(self, event):
        self.events.append(event)


def test_a_host_is_given_events():
    runtime, event = Seen(), ProgressEvent("denoise", 2, 5)
    runtime.tick(event)
    assert runtime.events == [event] and not event.done and ProgressEvent("vae", 3, 3).done


def test_every_kind_has_a_label():
    assert {ProgressEvent(kind, 1, 1).label for kind in LABELS} == {*filter(None, LABELS.values()), "other"}
    assert ProgressEvent("other", 1, 4, label="shard 7").label == "shard 7"
    with pytest.raises(ValueError, match="'paint' is no kind; choose one of read_prompt"):
        ProgressEvent("paint", 1, 1)


def test_the_bar_counts_and_closes(capsys):
    runtime = Runtime("cpu", progress=True)
    runtime.tick(ProgressEvent("convert", 1, 2))
    assert runtime._bar.desc == "Converting" and (runtime._bar.n, runtime._bar.total) == (1, 2)
    runtime.tick(ProgressEvent("convert", 2, 2))
    assert runtime._bar is None and "Converting" in capsys.readouterr().err
