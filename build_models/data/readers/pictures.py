"""A folder of pictures without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.data.listing import list_pictures, picture_files
from build_models.data.readers.base import Found

if TYPE_CHECKING:
    from build_models.data.formats import Pictures
    from build_models.data.problems import LabelIds, Problems
    from build_models.progress import Progress


def read_pictures(config: Pictures, labels: LabelIds, problems: Problems, progress: Progress | None) -> Found:  # noqa: ARG001 - a Reader
    """All pictures below the folder."""
    listing = list_pictures(config.path, picture_files(config.path), config.limit, problems, progress)
    return Found(listing.samples(lambda _: None, problems), listing.copies)
