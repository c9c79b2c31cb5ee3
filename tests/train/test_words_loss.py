"""The loss of answers: cross-entropy, and for places the wish to be near."""

import pytest
import torch
from torch.nn import functional as F
from wegen.wegen_model.data.collate import Batch, language_loss

FIRST, SIZE = 100, 400  # the id of the first location, the vocabulary


class Logits:
    """A language model whose hidden states are its logits."""

    def logits(self, hidden):
        return hidden


def loss(hidden, labels, **options):
    return language_loss(Logits(), hidden, Batch(labels, labels, torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool), []), **options).item()


@pytest.fixture
def hidden():
    return torch.randn(1, 4, SIZE, generator=torch.Generator().manual_seed(0))


def test_without_places_it_is_cross_entropy_of_the_next_token(hidden):
    labels = torch.tensor([[-100, 7, -100, 350]])
    plain = F.cross_entropy(hidden[0, [0, 2]], torch.tensor([7, 350])).item()
    assert loss(hidden, labels) == pytest.approx(plain)
    assert loss(hidden, labels, locations=FIRST, spread=6.0) == pytest.approx(plain)


def test_a_narrow_bell_is_cross_entropy(hidden):
    labels = torch.tensor([[-100, FIRST, FIRST + 223, 5]])
    assert loss(hidden, labels, locations=FIRST, spread=1e-3) == pytest.approx(loss(hidden, labels), rel=1e-5)


def test_near_is_better_than_far():
    labels = torch.tensor([[-100, FIRST + 50]])
    guesses = [8 * F.one_hot(torch.tensor([[FIRST + 50 + off, 0]]), SIZE).float() for off in (0, 3, 100)]
    right, near, far = (loss(g, labels, locations=FIRST, spread=6.0) for g in guesses)
    assert right < near < far
    assert loss(guesses[1], labels) == pytest.approx(loss(guesses[2], labels)), "which plain cross-entropy does not know"


def test_nothing_to_learn_is_zero_with_a_gradient(hidden):
    hidden.requires_grad_()
    labels = torch.full((1, 4), -100)
    value = language_loss(Logits(), hidden, Batch(labels, labels, torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool), []))
    value.backward()
    assert value == 0 and not hidden.grad.any()
