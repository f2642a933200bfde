from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

from build_models.demo.fit import PEAK_LEARNING_RATE, fit, halve, learning_rate, save_half

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.torch


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [learning_rate(step, 3000) for step in range(3000)]
    assert max(rates) == pytest.approx(PEAK_LEARNING_RATE)
    assert rates[0] < rates[100] < rates[199]
    assert rates[1000] > rates[2000] > rates[2999]
    assert rates[2999] < PEAK_LEARNING_RATE / 1000


def test_what_comes_out_is_the_average_of_the_weights_and_ready_to_be_asked() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    untrained = model.weight.detach().clone()
    average = fit(model, 300, lambda each: (each(torch.ones(1, 2)) - 3).square().mean())
    assert not average.training
    assert average is not model
    last, mean = (each.weight.detach() for each in (model, average))
    assert not torch.equal(mean, last)
    assert 0 < float((mean - untrained).norm()) < float((last - untrained).norm()), "it follows"


def test_the_weights_in_use_are_those_that_the_file_gives_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, again = torch.nn.Linear(50, 50), torch.nn.Linear(50, 50)
    exact = model.weight.detach().clone()
    halve(model)
    assert not torch.equal(model.weight, exact), "half precision rounds"
    save_half(model, tmp_path / "weights.pt")
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert (tmp_path / "weights.pt").stat().st_size < 2 * exact.numel() + 3000
