"""Packing: files and manifest into a bundle directory, signed, and put in place as a whole."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, load_bundle, parse_manifest
from build_models.errors import RecipeError
from build_models.sign import signature_file

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from agent.model.manifest import Manifest

_BUNDLE_NAMES = {MANIFEST_NAME, SIGNATURE_NAME, "models", "golden", "report"}


def list_files(folder: Path) -> list[dict[str, Any]]:
    """The manifest's ``files``: every file below a folder with size and digest, sorted by path."""
    entries = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            entries.append({"path": path.relative_to(folder).as_posix(), "bytes": len(data), "sha256": digest})
    return entries


def seal(folder: Path, content: dict[str, Any], key: Ed25519PrivateKey) -> Manifest:
    """Write ``manifest.json`` and ``manifest.sig`` beside the files of a bundle.

    Args:
        folder: holds the bundle's other files.
        content: the manifest as plain data, without ``files``.
        key: signs it.

    Returns:
        The manifest as the agent parses it.
    """
    manifest_bytes = (json.dumps({**content, "files": list_files(folder)}, indent=1) + "\n").encode()
    manifest = parse_manifest(manifest_bytes)
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes)
    (folder / SIGNATURE_NAME).write_bytes(signature_file(manifest_bytes, key))
    return manifest


def check_target(target: Path) -> None:
    """Raises RecipeError unless a bundle may be put there: nothing, an empty folder or a bundle is at ``target``."""
    if not os.path.lexists(target):
        return
    try:
        names = {path.name for path in target.iterdir()}
    except OSError as err:
        raise RecipeError(
            f"{target}: expected a folder or nothing there: {err.strerror}; choose another --out"
        ) from err
    if names and not {MANIFEST_NAME, SIGNATURE_NAME} <= names <= _BUNDLE_NAMES:
        raise RecipeError(f"{target}: there is something else than a bundle already; choose another --out")


def put_in_place(folder: Path, target: Path, public_key: Ed25519PublicKey) -> None:
    """Verify a sealed folder as an agent would, then rename it to ``target``.

    An older bundle there is renamed away first and comes back if the new one cannot take its place, so whoever reads
    finds one of the two, whole, or for a moment none.

    Args:
        folder: the sealed bundle, on the file system of ``target``; its parent is the caller's to remove, with the
            replaced bundle in it.
        target: as `check_target` allows it.
        public_key: of the key that sealed it.

    Raises:
        RecipeError: ``target`` is something else than a bundle, or the folder cannot be renamed to it.
        BundleError: an agent would refuse the bundle.
    """
    pem = folder.parent / "public.pem"
    pem.write_bytes(public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    load_bundle(folder, [pem])
    check_target(target)
    old = folder.parent / "replaced"
    try:
        if target.exists():
            target.rename(old)
        try:
            folder.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    except OSError as err:
        raise RecipeError(f"{target}: cannot put the bundle there: {err.strerror}; choose another --out") from err
