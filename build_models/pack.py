"""Packing: files and manifest into a bundle directory, signed, and put in place as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, load_bundle, parse_manifest
from build_models.errors import BuildError, RecipeError
from build_models.sign import signature_file

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from agent.model.manifest import Manifest


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


def put_in_place(folder: Path, target: Path, public_key: Ed25519PublicKey) -> None:
    """Verify a sealed folder as an agent would, then move it to ``target``, which is replaced if it is a bundle.

    Raises:
        RecipeError: ``target`` exists and is no bundle.
        BuildError: the folder cannot be moved there.
    """
    pem = folder.parent / "public.pem"
    pem.write_bytes(public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    load_bundle(folder, [pem])
    if target.exists() and not (target / MANIFEST_NAME).is_file():
        raise RecipeError(f"{target}: there is something else already; choose another --out")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        os.chmod(folder, 0o755)  # noqa: S103, PTH101 - a temporary folder is private, a bundle is for all to read
        shutil.move(folder, target)
    except OSError as err:
        raise BuildError(f"{target}: cannot put the bundle there: {err.strerror}") from err
