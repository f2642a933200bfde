"""Pictures of a dataset as the model gets them: resized exactly as the device resizes its frames."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from agent.vision.resize import Placement, Resizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from agent.model.manifest import InputSpec
    from build_models.data.dataset import Dataset
    from build_models.data.sample import Sample, Truth

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_KEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class Picture:
    """One picture as the model gets it.

    Attributes:
        name: the file's name in its folder.
        truth: what it shows, in pixels of the file; None without labels.
        input_image: uint8 ``[H, W, 3]`` BGR, resized.
        placement: where the picture lies in the input.
    """

    name: str
    truth: Truth | None
    input_image: NDArray[np.uint8]
    placement: Placement


class Pictures:
    """A dataset's pictures in its order, decoded and resized when they are asked for.

    The first ones are kept, up to a fixed amount of memory, as every candidate of a search looks at all of them.

    Args:
        dataset: where they come from.
        spec: the model's input.
        kept_bytes: most memory for resized pictures.
    """

    def __init__(self, dataset: Dataset, spec: InputSpec, kept_bytes: int = _KEPT_BYTES) -> None:
        self.dataset = dataset
        self.spec = spec
        self._kept: list[Picture] = []
        self._most_kept = kept_bytes // (spec.height * spec.width * 3)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Picture]:
        """Each picture once.

        Raises:
            RecipeError: a file is damaged, or no longer the one that was listed.
        """
        for index, sample in enumerate(self.dataset.samples):
            if index < len(self._kept):
                yield self._kept[index]
                continue
            picture = self._load(sample)
            if index == len(self._kept) < self._most_kept:
                self._kept.append(picture)
            yield picture

    def first(self, count: int) -> list[Picture]:
        """The first ones; the order is that of the files' digests, so they are any."""
        return list(islice(self, count))

    def images(self) -> Iterator[NDArray[np.uint8]]:
        """The resized images alone."""
        return (picture.input_image for picture in self)

    def _load(self, sample: Sample) -> Picture:
        input_image = np.zeros((self.spec.height, self.spec.width, 3), np.uint8)
        placement = Resizer(self.spec, input_image)(sample.image_bgr())
        return Picture(sample.name, sample.truth, input_image, placement)
