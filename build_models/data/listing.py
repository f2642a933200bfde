"""The pictures of a folder, listed: digest and size of each, equal ones once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import PictureError
from build_models.data.picture import listed_size, read_file
from build_models.data.sample import Sample
from build_models.errors import RecipeError
from build_models.pictures import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from build_models.data.problems import Problems
    from build_models.data.sample import Truth
    from build_models.progress import Progress


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture file: its name in the folder, with ``/``, and what one look at the file told."""

    name: str
    path: Path
    sha256: str
    size_wh: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Listing:
    """The pictures by digest, each with all the files that hold it, and how many files were copies of others."""

    by_digest: tuple[tuple[Listed, ...], ...]
    copies: int

    def samples(self, truth_of: Callable[[Listed], Truth | None], problems: Problems) -> list[Sample]:
        """Each picture once with its truth; copies must have the same one."""
        found = []
        for listed, *copies in self.by_digest:
            truth = truth_of(listed)
            digest = truth.digest() if truth else None
            for copy in copies:
                other = truth_of(copy)
                if (other.digest() if other else None) != digest:
                    problems.add(copy.name, f"the same picture as {listed.name}, but labelled otherwise; correct one")
            found.append(Sample(listed.name, listed.path, listed.sha256, listed.size_wh, truth))
        return found


def picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder and its subfolders, by name.

    Raises:
        RecipeError: there is no such folder, or none in it.
    """
    found = [path for path in files_in(folder) if path.suffix.lower() in SUFFIXES]
    if not found:
        raise RecipeError(f"{folder}: expected pictures ({', '.join(SUFFIXES)}) in this folder, found none")
    return found


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders but hidden ones, by name.

    Raises:
        RecipeError: there is no such folder.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder}: expected a folder, found {'a file' if folder.exists() else 'none'}")
    return sorted(path for path in folder.rglob("*") if not path.name.startswith(".") and path.is_file())


def list_pictures(
    folder: Path, paths: Sequence[Path], limit: int | None, problems: Problems, progress: Progress | None
) -> Listing:
    """Read each file once; the first ``limit`` pictures by digest are listed.

    Args:
        folder: the names are relative to it.
        paths: the files.
        limit: None: all.
        problems: where damaged files are noted.
        progress: shows a bar.
    """
    by_digest: dict[str, list[Listed]] = {}
    for path in _tracked(paths, progress):
        name = path.relative_to(folder).as_posix()
        try:
            content = read_file(path)
            sha256 = hashlib.sha256(content).hexdigest()
            listed = Listed(name, path, sha256, listed_size(content))
        except RecipeError as err:
            problems.add(name, str(err))
        except PictureError as err:
            problems.add(name, f"damaged, or no picture: {err}")
        else:
            by_digest.setdefault(sha256, []).append(listed)
    chosen = tuple(tuple(by_digest[sha256]) for sha256 in sorted(by_digest)[:limit])
    return Listing(chosen, sum(len(files) - 1 for files in chosen))


def _tracked(paths: Sequence[Path], progress: Progress | None) -> Iterable[Path]:
    return paths if progress is None else progress.track(paths, len(paths), "picture")
