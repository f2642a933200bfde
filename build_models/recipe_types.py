"""Types that several sections of the recipe share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo


class FromCommandLine(str):
    """A text that somebody typed: as a path it is relative to where they are, not to the recipe."""

    __slots__ = ()


def _typed(value: object) -> object:
    return Path.cwd() / Path(value).expanduser() if isinstance(value, FromCommandLine) else value


def _below_base(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return path if base is None else Path(base) / path.expanduser()


# A path as the recipe says it, relative to the recipe's folder (the validation context's ``base``).
RecipePath = Annotated[Path, Field(strict=False), BeforeValidator(_typed), AfterValidator(_below_base)]
