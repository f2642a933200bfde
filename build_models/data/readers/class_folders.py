"""A folder per class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.data.listing import list_pictures, picture_files
from build_models.data.readers.base import Found
from build_models.data.sample import ClassTruth
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from build_models.data.formats import ClassFolders
    from build_models.data.listing import Listed
    from build_models.data.problems import LabelIds, Problems
    from build_models.progress import Progress


def read_class_folders(config: ClassFolders, labels: LabelIds, problems: Problems, progress: Progress | None) -> Found:
    """All pictures in the folders of the classes and below them."""
    if not config.path.is_dir():
        raise RecipeError(f"{config.path}: expected a folder with one folder per class, found none")
    names = sorted(each.name for each in config.path.iterdir() if each.is_dir() and not each.name.startswith("."))
    class_map = config.class_map or {}
    for name in class_map.keys() - set(names):
        problems.add("class_map", f"there is no folder {name!r} in {config.path}")
    ids = {name: labels.id_of(class_map.get(name, name), f"folder {name}") for name in names}
    paths = picture_files(config.path)
    for name in names:
        if not any(path.relative_to(config.path).parts[0] == name for path in paths):
            problems.add(f"folder {name}", "expected pictures in it, found none; fill it or remove it")
    for path in paths:
        if path.parent == config.path:
            problems.add(path.name, "expected it in the folder of a class, it lies beside these folders")
    inside = [path for path in paths if path.parent != config.path]

    def truth_of(listed: Listed) -> ClassTruth | None:
        label = ids[listed.name.partition("/")[0]]
        return None if label is None else ClassTruth(label)

    listing = list_pictures(config.path, inside, config.limit, problems, progress)
    samples = listing.samples(truth_of, problems)
    shown = len({sample.truth.label for sample in samples if isinstance(sample.truth, ClassTruth)})
    return Found(samples, listing.copies, (f"{shown} of {len(labels)} classes",))
