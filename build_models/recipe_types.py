"""Types that several sections of the recipe share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo


def _below_base(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return path if base is None else Path(base) / path.expanduser()


# A path as the recipe says it, relative to the recipe's folder (the validation context's ``base``).
RecipePath = Annotated[Path, Field(strict=False), AfterValidator(_below_base)]
