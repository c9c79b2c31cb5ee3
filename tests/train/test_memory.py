"""What saves memory changes nothing: recomputed activations give the same gradients, and fewer bytes lie about.

Accumulation is tested in test_stages.py, averaging in test_trainer.py.
"""

import weakref

import pytest
import torch
from torch import autocast
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from wegen.tests.train.test_stages import make, talk_of

STAGES = [("visual-decoding", 0), ("visual-decoding", 2), ("stage-1", 0), ("stage-1", 2)]


class Live(TorchDispatchMode):
    """Counts the bytes of all storages that operations made and that are still alive; `peak` is the most there were."""

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor) and (storage := value.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.bytes += storage.nbytes()
                self.peak = max(self.peak, self.bytes)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return out

    def _gone(self, size: int) -> None:
        self.bytes -= size


def step(folder, name: str, samples, **changes):
    """Loss, gradients by name, and the peak of what one forward and backward pass held beside the weights."""
    torch.manual_seed(0)
    task, _ = make(folder, name, samples, condition_dropout=0.0, **changes)
    task.model.train()
    for parameter_name, p in task.model.named_parameters():
        if parameter_name.endswith("up"):  # an adapter's second matrix is zeros at first, and hides the gradient of its first
            torch.nn.init.normal_(p, 0, 0.1)
    shares = dict.fromkeys(("words", "written", "pictures"), 1.0)
    batch, generator = task.micro_batch(0, 0, 1), torch.Generator().manual_seed(0)
    with Live() as live, autocast("cpu", torch.bfloat16, enabled=changes.get("precision") == "bf16"):
        loss = task.loss(batch, generator, shares)["loss"]
        loss.backward()
    return loss.item(), {k: p.grad for k, p in task.model.named_parameters() if p.grad is not None}, live.peak


@pytest.mark.parametrize("name, rank", STAGES)
def test_recomputed_activations_give_the_same_gradients_in_less_memory(tiny, name, rank):
    samples = talk_of(*["edit"] * 4)
    (loss, plain, held), (same, recomputed, less) = (step(tiny, name, samples, lora=rank, checkpointing=on) for on in (False, True))
    assert same == pytest.approx(loss, rel=1e-6) and plain.keys() == recomputed.keys() and len(plain) > 10
    for key, value in plain.items():
        assert (value - recomputed[key]).abs().max() <= 1e-4 * value.abs().max(), key
    assert any(value.abs().max() > 0 for value in plain.values())
    assert less < 0.8 * held, (less, held)


@pytest.mark.parametrize("name", ["visual-decoding", "stage-1"])
def test_bfloat16_is_near_float32(tiny, name):
    samples = talk_of("edit", "draw")
    (exact, plain, _), (loss, rounded, _) = (step(tiny, name, samples, precision=p) for p in ("no", "bf16"))
    assert loss == pytest.approx(exact, rel=0.05)
    assert all(v.dtype == torch.float32 for v in rounded.values())  # weights, and so their gradients, stay float32
    whole = [torch.cat([g[k].flatten() for k in plain]) for g in (plain, rounded)]
    assert torch.cosine_similarity(*whole, dim=0) > 0.85  # random weights: roundings grow
