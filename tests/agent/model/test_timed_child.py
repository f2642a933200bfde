"""The child that times: it answers round by round, says what it needed, and never outlives its parent."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import BundleError
from agent.model import timed_child
from agent.model.timed_child import TimedChild

SERVES = """
from agent.model.timed_child import serve_rounds
kept = bytearray({size})
kept[::4096] = bytes([1]) * len(kept[::4096])
serve_rounds(lambda: sum(range(100)), 0.01, {{"said": "hello"}})
"""


def child(folder: Path, program: str) -> TimedChild:
    """A child that runs ``program`` as a module of ``folder``."""
    root = Path(__file__).parents[3]
    name = f"timed_{len(list(folder.iterdir()))}"
    (folder / f"{name}.py").write_text(f"import sys; sys.path.insert(0, {str(root)!r})\n{program}")
    return TimedChild("mine", [name], BundleError, folder)


def test_it_says_what_it_is_and_answers_each_round(tmp_path: Path) -> None:
    served = child(tmp_path, SERVES.format(size=1))
    try:
        assert served.wait_until_ready() == {"said": "hello"}
        first, second = served.run_round(), served.run_round()
    finally:
        served.close()
    assert len(first) >= 3
    assert all(value > 0 for value in [*first, *second])


def test_memory_is_that_of_the_child_alone(tmp_path: Path) -> None:
    """The parent holds 300 MB more than the child, which has 80 MB of its own."""
    mine = bytearray(300_000_000)
    mine[::4096] = bytes([1]) * len(mine[::4096])
    small, large = (child(tmp_path, SERVES.format(size=size)) for size in (1, 80_000_000))
    try:
        needed = []
        for each in (small, large):
            each.wait_until_ready()
            needed.append(each.peak_mb())
    finally:
        small.close()
        large.close()
    del mine
    assert needed[0] < 250
    assert 60 < needed[1] - needed[0] < 110


def test_a_child_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    broken = child(tmp_path, "sys.exit('first line\\nno such model')")
    with pytest.raises(BundleError, match="benchmark of mine: its process ended with exit code 1: no such model"):
        broken.wait_until_ready()
    broken.close()


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_child, "_ANSWER_LIMIT_S", 0.05)
    hanging = child(tmp_path, "sys.stdin.read()")
    with pytest.raises(BundleError, match=r"benchmark of mine: no answer within 0\.05 s; it was ended"):
        hanging.wait_until_ready()
    hanging.close()
    assert hanging._process.returncode == -9
