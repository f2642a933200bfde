"""Figures from devices: what ``edge-agent bench --json`` printed there, fed back with ``--measured``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from agent.model.manifest import Record, Sha256, Text
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

Milliseconds = Annotated[float, Field(gt=0)]


class _Partly(Record):
    """A part of what a device prints; what else it says there is not needed here."""

    model_config = ConfigDict(extra="ignore")


class MeasuredDevice(_Partly):
    """The machine that was measured."""

    arch: Literal["x86_64", "aarch64"]
    cpu: Text
    features: tuple[Text, ...] = ()
    onnxruntime: Text


class MeasuredFile(_Partly):
    """One variant's file: ``median_ms`` is time, unless the file says that its figures are a proxy."""

    variant: Text
    provider: Text = "cpu"
    sha256: Sha256
    precision: Text
    median_ms: Milliseconds
    p90_ms: Milliseconds | None = None
    min_ms: Milliseconds | None = None
    runs: Annotated[int, Field(ge=1)]


class Measured(_Partly):
    """One device's figures; ``proxy`` names what was counted in place of time, such as instructions."""

    schema_version: Literal[1] = Field(alias="schema")
    device: MeasuredDevice
    threads: Annotated[int, Field(ge=1)]
    proxy: Text | None = None
    results: Annotated[list[MeasuredFile], Field(min_length=1)]

    def times(self, sha256: str, fp32_sha256: str, provider: str = "cpu") -> tuple[float, float] | None:
        """Medians of a file and of the fp32 file; None when one of the two was not measured there."""
        medians = {each.sha256: each.median_ms for each in self.results if each.provider == provider}
        if sha256 not in medians or fp32_sha256 not in medians:
            return None
        return medians[sha256], medians[fp32_sha256]

    @property
    def unit(self) -> str:
        """Of the medians."""
        return self.proxy or "ms"

    @property
    def said(self) -> str:
        """Where the figures come from."""
        return f"{self.device.cpu} ({self.device.arch})" + (f", by {self.proxy}" if self.proxy else "")


def load_measured(path: Path) -> Measured:
    """Read a device's figures.

    Raises:
        RecipeError: there is no such file, or it is none that ``edge-agent bench --json`` prints.
    """
    try:
        return Measured.model_validate_json(path.read_bytes())
    except OSError as err:
        raise RecipeError(f"--measured {path}: cannot read it: {err.strerror}") from err
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(
            f"--measured {path}: expected what `edge-agent bench --json` prints, but {where or 'it'}: {first['msg']}"
        ) from err
