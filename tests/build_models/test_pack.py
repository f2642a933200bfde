"""Packing: what is sealed an agent accepts, and whoever reads the target finds a whole bundle or none."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.errors import BundleError
from agent.model.bundle import load_bundle
from build_models.errors import RecipeError
from build_models.pack import check_target, list_files, put_in_place, seal
from tests.support.bundles import GOLDEN_PATH, MODEL_PATH, golden_pair, manifest_of, write_public_key
from tests.support.tiny_models import detect_model

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = Ed25519PrivateKey.generate()


def staged(folder: Path, version: int = 1) -> Path:
    """A sealed bundle in a folder of its own, as the build leaves it."""
    root = folder / "bundle"
    for path in (MODEL_PATH, GOLDEN_PATH):
        (root / path).parent.mkdir(parents=True)
    (root / MODEL_PATH).write_bytes(detect_model().file)
    (root / GOLDEN_PATH).write_bytes(golden_pair(detect_model()))
    seal(root, content(version), KEY)
    return root


def content(version: int = 1, **changes: Any) -> dict[str, Any]:
    plain = {**manifest_of(detect_model(), {}), "version": version, **changes}
    del plain["files"]
    return plain


@pytest.fixture
def public_key(tmp_path: Path) -> Path:
    return write_public_key(tmp_path / "trusted.pem", KEY)


@pytest.fixture
def version_at(public_key: Path) -> Callable[[Path], int]:
    """The version of the bundle at a path, which must be whole."""
    return lambda path: load_bundle(path, [public_key]).manifest.version


def test_files_are_listed_by_path_with_size_and_digest(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"")
    assert list_files(tmp_path) == [
        {"path": "a", "bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()},
        {"path": "b/2", "bytes": 3, "sha256": hashlib.sha256(b"two").hexdigest()},
    ]


def test_a_sealed_folder_is_a_bundle_for_the_agent(tmp_path: Path, version_at: Callable[[Path], int]) -> None:
    assert version_at(staged(tmp_path / "work", version=7)) == 7


def test_a_manifest_that_the_agent_would_refuse_is_not_sealed(tmp_path: Path) -> None:
    root = staged(tmp_path / "work")
    with pytest.raises(BundleError, match="surprise"):
        seal(root, content(surprise=1), KEY)


@pytest.mark.parametrize("empty_folder", [True, False])
def test_a_bundle_goes_where_nothing_is(
    tmp_path: Path, version_at: Callable[[Path], int], *, empty_folder: bool
) -> None:
    target = tmp_path / "out"
    if empty_folder:
        target.mkdir()
    put_in_place(staged(tmp_path / "work"), target, KEY.public_key())
    assert version_at(target) == 1


def test_an_older_bundle_is_replaced_as_a_whole(tmp_path: Path, version_at: Callable[[Path], int]) -> None:
    target = tmp_path / "out"
    put_in_place(staged(tmp_path / "work", 1), target, KEY.public_key())
    (target / "models" / "leftover.onnx").touch()
    put_in_place(staged(tmp_path / "again", 2), target, KEY.public_key())
    assert version_at(target) == 2


def test_a_reader_never_finds_half_a_bundle(
    tmp_path: Path, version_at: Callable[[Path], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    put_in_place(staged(tmp_path / "work", 1), target, KEY.public_key())
    seen: list[int | None] = []
    rename = Path.rename

    def look_and_rename(path: Path, other: Path) -> Path:
        seen.append(version_at(target) if target.exists() else None)
        result = rename(path, other)
        seen.append(version_at(target) if target.exists() else None)
        return result

    monkeypatch.setattr(Path, "rename", look_and_rename)
    put_in_place(staged(tmp_path / "again", 2), target, KEY.public_key())
    assert seen == [1, None, None, 2]


def test_the_older_bundle_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, version_at: Callable[[Path], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    put_in_place(staged(tmp_path / "work", 1), target, KEY.public_key())
    rename = Path.rename

    def fail_for_the_new_one(path: Path, other: Path) -> Path:
        if path.name == "bundle":
            raise OSError(28, "No space left on device")
        return rename(path, other)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(RecipeError, match="cannot put the bundle there: No space left on device"):
        put_in_place(staged(tmp_path / "again", 2), target, KEY.public_key())
    assert version_at(target) == 1


def test_a_damaged_bundle_does_not_reach_the_target(tmp_path: Path, version_at: Callable[[Path], int]) -> None:
    target = tmp_path / "out"
    put_in_place(staged(tmp_path / "work", 1), target, KEY.public_key())
    damaged = staged(tmp_path / "again", 2)
    (damaged / MODEL_PATH).write_bytes((damaged / MODEL_PATH).read_bytes()[::-1])
    with pytest.raises(BundleError, match="was changed"):
        put_in_place(damaged, target, KEY.public_key())
    assert version_at(target) == 1


def web_app(target: Path) -> None:
    """Has a manifest.json too, and must not be mistaken for a bundle."""
    (target / "models").mkdir(parents=True)
    (target / "manifest.json").touch()


def bundle_with_notes(target: Path) -> None:
    shutil.copytree(staged(target.parent / "other"), target)
    (target / "notes.txt").write_text("somebody's own")


def a_file(target: Path) -> None:
    target.write_text("precious")


@pytest.mark.parametrize("make", [web_app, bundle_with_notes, a_file])
def test_something_else_at_the_target_is_never_touched(tmp_path: Path, make: Callable[[Path], None]) -> None:
    target = tmp_path / "out"
    make(target)
    before = sorted(tmp_path.joinpath("out").rglob("*"))
    with pytest.raises(RecipeError, match=r"out: .*choose another --out"):
        check_target(target)
    with pytest.raises(RecipeError, match=r"out: .*choose another --out"):
        put_in_place(staged(tmp_path / "work"), target, KEY.public_key())
    assert sorted(tmp_path.joinpath("out").rglob("*")) == before
    assert target.is_dir() or target.read_text() == "precious"
