"""Signed bundles of tiny models, written the way the build side writes real ones."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.model import golden
from agent.model.bundle import MANIFEST_NAME, SIGNATURE_NAME, key_id
from tests.support.tiny_models import TinyModel, detect_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MODEL_PATH = "models/cpu-fp32.onnx"
GOLDEN_PATH = "golden/cpu-fp32.npz"
REPORT_PATH = "report/report.json"


@dataclass(frozen=True)
class SignedBundle:
    """A bundle's directory, the PEM file with the public key, and the key itself."""

    root: Path
    public_key: Path
    key: Ed25519PrivateKey


def make_bundle(
    folder: Path,
    key: Ed25519PrivateKey | None = None,
    tiny: TinyModel | None = None,
    *,
    golden_file: bytes | None = None,
    change: Callable[[dict[str, Any]], object] | None = None,
) -> SignedBundle:
    """Write ``folder/bundle`` and ``folder/trusted.pem``.

    Args:
        folder: where; it is made if missing.
        key: signs; by default a new one.
        tiny: the model; by default a detector.
        golden_file: replaces the golden file that fits the model.
        change: edits the manifest before it is signed.
    """
    key = key or Ed25519PrivateKey.generate()
    tiny = tiny or detect_model()
    files = {
        MODEL_PATH: tiny.file,
        GOLDEN_PATH: golden_pair(tiny) if golden_file is None else golden_file,
        REPORT_PATH: b"{}\n",
    }
    manifest = manifest_of(tiny, files)
    if change is not None:
        change(manifest)
    root = folder / "bundle"
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    write_manifest(root, manifest, key)
    return SignedBundle(root, write_public_key(folder / "trusted.pem", key), key)


def manifest_of(tiny: TinyModel, files: Mapping[str, bytes]) -> dict[str, Any]:
    """A complete manifest of one variant as plain data."""
    variant = {
        "id": "cpu-fp32",
        "file": MODEL_PATH,
        "precision": "fp32",
        "providers": ["cpu"],
        "input": {"height": tiny.height, "width": tiny.width},
        "golden": {"file": GOLDEN_PATH, "tolerances": {}},
    }
    return {
        "schema": 1,
        "name": "tiny",
        "version": 3,
        "task": tiny.task,
        "labels": tiny.labels,
        "variants": [variant],
        "files": [listing(path, content) for path, content in sorted(files.items())],
        "provenance": {
            "source": "tests/support/tiny_models.py",
            "source_sha256": "0" * 64,
            "recipe_sha256": "1" * 64,
            "versions": {},
        },
    }


def listing(path: str, content: bytes) -> dict[str, Any]:
    """A file's entry in the manifest."""
    return {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def write_manifest(root: Path, manifest: Mapping[str, Any] | bytes, key: Ed25519PrivateKey) -> None:
    """Write and sign a manifest; bytes are taken as they are."""
    content = manifest if isinstance(manifest, bytes) else json.dumps(manifest, indent=1).encode()
    (root / MANIFEST_NAME).write_bytes(content)
    (root / SIGNATURE_NAME).write_bytes(json.dumps(signature_of(content, key)).encode())


def signature_of(manifest: bytes, key: Ed25519PrivateKey) -> dict[str, Any]:
    """What ``manifest.sig`` says, as plain data."""
    signature = base64.b64encode(key.sign(manifest)).decode()
    return {"algorithm": "ed25519", "key_id": key_id(key.public_key()), "signature": signature}


def write_public_key(path: Path, key: Ed25519PrivateKey) -> Path:
    """Write the PEM file that goes into ``model.trusted_keys``."""
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def golden_pair(tiny: TinyModel) -> bytes:
    """The golden file of a model: two pictures of different colour, and what it must say of them."""
    return golden.dump([(picture, tiny.outputs_of(picture)) for picture in golden_pictures(tiny.width, tiny.height)])


def golden_pictures(width: int, height: int) -> list[NDArray[np.uint8]]:
    """A bright reddish and a darker bluish picture, uint8 ``[height, width, 3]``; noisy, the same at each call."""
    noise = np.random.default_rng(7).integers(0, 30, (2, height, width, 3))
    colours = np.array([[150, 180, 220], [190, 120, 60]])
    return list((colours[:, None, None, :] + noise).astype(np.uint8))
