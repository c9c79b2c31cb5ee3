"""Progress as a value, and the two ways to tell it."""

import pytest
from wegen.wegen_model.progress import LABELS, ProgressEvent, as_event
from wegen.wegen_model.runtime import Runtime


class Seen(Runtime):
    def __init__(self):
        super().__init__("cpu")
        self.events = []

    def advance(self, event):
        self.events.append(event)


def test_a_host_is_given_events_whichever_way_it_is_told():
    runtime, event = Seen(), ProgressEvent("denoise", 2, 5)
    runtime.tick(event)
    runtime.tick(2, 5, "Decoder")
    runtime.tick(3, 4, "shard 7", text="a")
    assert runtime.events == [event, event, ProgressEvent("other", 3, 4, text="a", label="shard 7")]
    assert not event.done and ProgressEvent("vae", 3, 3).done


def test_every_label_leads_to_its_kind():
    assert all(as_event(1, 2, label).kind == kind for kind, label in LABELS.items() if label)
    assert {ProgressEvent(kind, 1, 1).label for kind in LABELS} == {*filter(None, LABELS.values()), "other"}
    with pytest.raises(ValueError, match="'paint' is no kind; choose one of read_prompt"):
        ProgressEvent("paint", 1, 1)


def test_the_bar_counts_and_closes(capsys):
    runtime = Runtime("cpu", progress=True)
    runtime.tick(1, 2, "Converting")
    assert runtime._bar.desc == "Converting" and (runtime._bar.n, runtime._bar.total) == (1, 2)
    runtime.tick(ProgressEvent("convert", 2, 2))
    assert runtime._bar is None and "Converting" in capsys.readouterr().err
