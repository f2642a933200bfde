"""What a reader is, and what all of them need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from build_models.data.listing import files_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from build_models.data.problems import LabelIds, Problems
    from build_models.data.sample import Sample
    from build_models.progress import Progress

Config_contra = TypeVar("Config_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader found: the pictures, how many files were copies of others, and notes for people."""

    samples: list[Sample]
    copies: int
    notes: tuple[str, ...] = ()


class Reader(Protocol[Config_contra]):
    """Reads one format: notes what is wrong and goes on, so that everything is told at once."""

    def __call__(self, config: Config_contra, labels: LabelIds, problems: Problems, progress: Progress | None) -> Found:
        """Raises RecipeError where there is nothing to go on with."""
        ...


def note_orphans(
    folder: Path, suffix: str, paths: Iterable[Path], images: Path, problems: Problems, apart: frozenset[str]
) -> None:
    """Every label file that belongs to no picture is a problem.

    Args:
        folder: of the label files.
        suffix: of them.
        paths: the pictures in ``images``.
        images: their folder.
        problems: where to note them.
        apart: names of files that are allowed to lie there.
    """
    expected = {partner(path, images, folder, suffix) for path in paths}
    for path in files_in(folder):
        if path.suffix.lower() == suffix and path not in expected and path.name not in apart:
            problems.add(
                path.relative_to(folder).as_posix(), f"expected a picture of that name in {images}, found none"
            )


def partner(picture: Path, images: Path, folder: Path, suffix: str) -> Path:
    """Where the file beside a picture lies: the same place and name in its own folder."""
    return folder / picture.relative_to(images).with_suffix(suffix)
