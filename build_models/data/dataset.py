"""A dataset: its pictures in an order that depends on the files' contents alone, and a digest of everything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_models.data.problems import LabelIds, Problems
from build_models.data.readers import READERS
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.model.manifest import Task
    from build_models.data.formats import AnyData
    from build_models.data.sample import Sample
    from build_models.progress import Progress


@dataclass(frozen=True, slots=True)
class Dataset:
    """Pictures with their truth, by digest.

    Attributes:
        samples: no picture twice.
        task: what the truth is for; None without labels.
        sha256: digest of the pictures and of their truth.
        said: what was found, in a few words, for progress and the report.
    """

    samples: tuple[Sample, ...]
    task: Task | None
    sha256: str
    said: str

    def __len__(self) -> int:
        return len(self.samples)

    def subset(self, samples: Iterable[Sample]) -> Dataset:
        """A part of it, with its own digest, in the order of the digests."""
        return make_dataset(samples, self.task)


def make_dataset(samples: Iterable[Sample], task: Task | None, said: str | None = None) -> Dataset:
    """A dataset of samples that are known to differ."""
    ordered = tuple(sorted(samples, key=lambda sample: sample.sha256))
    total = hashlib.sha256()
    for sample in ordered:
        total.update(f"{sample.sha256} {sample.truth.digest() if sample.truth else ''}\n".encode())
    return Dataset(ordered, task, total.hexdigest(), said or f"{len(ordered)} pictures")


def load_dataset(config: AnyData, labels: Sequence[str], task: Task, progress: Progress | None = None) -> Dataset:
    """List a dataset: every file is read once for its digest and judged by its header; no pixels are kept.

    Args:
        config: where it lies and in which format.
        labels: the recipe's, index = class id.
        task: what the truth must be for; ``pictures`` fit every task.
        progress: shows a bar while files are read.

    Raises:
        RecipeError: everything that is wrong with it, in one list.
    """
    reader, its_task = READERS[config.format]
    if its_task not in (None, task):
        fitting = ", ".join(name for name, (_, other) in READERS.items() if other in (None, task))
        raise RecipeError(f"expected data to {task}, such as {fitting}; {config.format} has labels to {its_task}")
    problems = Problems()
    found = reader(config, LabelIds(labels, problems), problems, progress)
    if len(problems):
        problems.raise_for(f"{config.format} data in {config.folder}")
    notes = (f"{found.copies} copies left out",) if found.copies else ()
    said = ", ".join((f"{len(found.samples)} pictures", *found.notes, *notes))
    return make_dataset(found.samples, its_task, said)
