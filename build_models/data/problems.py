"""Everything that is wrong with a dataset, collected and told at once."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import TYPE_CHECKING, NoReturn

from build_models.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 20


class Problems:
    """Problems in the order they were met."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, where: str, what: str) -> None:
        """Remember one; ``where`` is a file, or a key of the recipe."""
        self._texts.append(f"{where}: {what}")

    def raise_for(self, what: str) -> NoReturn:
        """Raise RecipeError with the first problems and the number of the others."""
        count = len(self._texts)
        lines = [f"{what}: {count} {'problem' if count == 1 else 'problems'}"]
        lines += [f"  {text}" for text in self._texts[:SHOWN]]
        if count > SHOWN:
            lines.append(f"  and {count - SHOWN} more")
        raise RecipeError("\n".join(lines))


class LabelIds:
    """Class ids by label; a name that is no label is a problem, told once with the one that was probably meant."""

    def __init__(self, labels: Sequence[str], problems: Problems) -> None:
        self.labels = labels
        self._problems = problems
        self._ids = {label: index for index, label in enumerate(labels)}
        self._several = {label for label, count in Counter(labels).items() if count > 1}
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def id_of(self, name: str, where: str) -> int | None:
        """The class id, or None after a problem was noted."""
        found = self._ids.get(name)
        if found is not None and name not in self._several:
            return found
        if name not in self._told:
            self._told.add(name)
            self._problems.add(where, self._trouble(name))
        return None

    def _trouble(self, name: str) -> str:
        if name in self._several:
            return f"{name!r} names several of the recipe's labels; give them different names"
        close = difflib.get_close_matches(name, self.labels, n=1)
        if close:
            return f"{name!r} is no label of the recipe; did you mean {close[0]!r}?"
        few = ", ".join(self.labels[:8]) + (", ..." if len(self.labels) > 8 else "")
        return f"{name!r} is no label of the recipe ({few}); map it to one with class_map"
