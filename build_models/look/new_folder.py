"""A folder of results that appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from build_models.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def new_folder(target: Path, sign: str) -> Iterator[Path]:
    """A temporary folder that becomes ``target`` when the block ends well.

    Args:
        target: may exist when it is empty, or holds a file ``sign``: an older result, which is replaced.
        sign: a file that every such result has.

    Raises:
        RecipeError: there is something else at the target, or nothing can be written there.
    """
    place = target.resolve()
    if place.exists() and not (place.is_dir() and ((place / sign).is_file() or not any(place.iterdir()))):
        raise RecipeError(f"{target}: there is something else already; choose another --out")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent)
    except OSError as err:
        raise RecipeError(f"{target}: cannot write there: {err.strerror}; choose another --out") from err
    with holder as name:
        folder = Path(name) / "new"
        folder.mkdir()
        yield folder
        if place.exists():
            shutil.rmtree(place)
        folder.replace(place)
