from __future__ import annotations

import numpy as np
import pytest

from agent.model.manifest import InputSpec
from agent.vision.resize import Placement
from build_models.errors import RecipeError
from build_models.evaluation import Evaluation, Runner, Table, run_evaluation, runner


def measure(runners: dict[str, Runner]) -> Evaluation:
    """What a recipe may name."""
    return Evaluation("mine", (Table("sizes", ("file", "boxes"), tuple((name, "3") for name in runners)),))


def measure_nothing(_: dict[str, Runner]) -> None:
    """A function that forgets to return."""


class FakeSession:
    """Answers with the mean of what it was given."""

    def __init__(self) -> None:
        self.input_image = np.zeros((8, 16, 3), np.uint8)

    def run(self) -> dict[str, np.ndarray]:
        return {"mean": self.input_image.mean(axis=(0, 1))}


def test_the_recipes_function_gets_a_runner_for_each_variant() -> None:
    runners: dict[str, Runner] = {
        name: lambda image: ({}, Placement((1, 1), (0, 0), (1, 1), (1, 1))) for name in ("a", "b")
    }
    assert run_evaluation(f"{__name__}:measure", runners).tables[0].rows == (("a", "3"), ("b", "3"))


def test_a_runner_resizes_as_the_device_does() -> None:
    spec = InputSpec(
        height=8, width=16, resize="letterbox", align="center", interpolation="linear", crop_ratio=1.0,
        pad_bgr=[0, 0, 0],
    )  # fmt: skip
    run = runner(FakeSession(), spec)  # type: ignore[arg-type] # all that a runner uses
    outputs, placement = run(np.full((16, 16, 3), 200, np.uint8))
    assert outputs["mean"].tolist() == [100, 100, 100]  # a square fills half of the input
    assert placement.frame_wh == (16, 16)
    assert placement.offset_xy == (4, 0)


@pytest.mark.parametrize(
    ("callable_", "reason"),
    [
        ("no_such_module:measure", "No module named 'no_such_module'"),
        (f"{__name__}:no_such_function", "no attribute 'no_such_function'"),
        (f"{__name__}:measure_nothing", "expected an Evaluation, got NoneType"),
        (f"{__name__}:__name__", "expected a function, got str"),
    ],
)
def test_what_the_recipe_names_wrongly_is_refused_in_one_line(callable_: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason) as caught:
        run_evaluation(callable_, {})
    assert callable_ in str(caught.value)
    assert "\n" not in str(caught.value)
