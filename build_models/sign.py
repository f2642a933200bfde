"""Ed25519 keys and signatures: ``build-models keygen`` and the ``manifest.sig`` of a bundle."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from agent.model.bundle import key_id
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path


def generate_keys(prefix: Path) -> tuple[Path, Path, str]:
    """Write a new pair of PEM files ``<prefix>.private.pem`` (mode 600) and ``<prefix>.public.pem``.

    Returns:
        The private file, the public file, and the key id.

    Raises:
        RecipeError: a file exists already (a key is never overwritten) or cannot be written.
    """
    private_path = prefix.with_name(prefix.name + ".private.pem")
    public_path = prefix.with_name(prefix.name + ".public.pem")
    key = Ed25519PrivateKey.generate()
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    present = next((path for path in (private_path, public_path) if os.path.lexists(path)), None)
    if present is not None:
        raise RecipeError(f"{present}: there is a key already; choose another name, keys are not replaced")
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        for path, content, mode in ((private_path, private_pem, 0o600), (public_path, public_pem, 0o644)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
    except OSError as err:
        raise RecipeError(f"{err.filename}: cannot write the key: {err.strerror}; choose another name") from err
    return private_path, public_path, key_id(key.public_key())


def load_private_key(path: Path | None) -> Ed25519PrivateKey:
    """Read the signing key; raises RecipeError that says how to make one."""
    advice = "make one with `build-models keygen NAME` and pass --key NAME.private.pem"
    if path is None:
        raise RecipeError(f"a bundle must be signed and no key was given; {advice}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the signing key: {err.strerror}; {advice}") from err
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise RecipeError(
            f"{path}: expected a PEM private key without password, found something else; {advice}"
        ) from err
    if not isinstance(key, Ed25519PrivateKey):
        raise RecipeError(f"{path}: expected an Ed25519 private key, found another kind; {advice}")
    return key


def signature_file(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of ``manifest.sig`` for the exact bytes of a manifest."""
    record = {
        "algorithm": "ed25519",
        "key_id": key_id(key.public_key()),
        "signature": base64.b64encode(key.sign(manifest)).decode(),
    }
    return (json.dumps(record, indent=1) + "\n").encode()
