"""A bundle on disk: load it, and believe nothing in it before signature, sizes and digests are checked.

    manifest.json   what the bundle is (``agent/model/manifest.py``)
    manifest.sig    JSON: algorithm, key id, Ed25519 signature over the exact bytes of manifest.json
    models/  golden/  report/   the files that the manifest lists, and no others

Verification order: signature, manifest, then every file from the descriptor that is read. A variant's bytes are
handed on from memory, so what was checked is what runs.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import ValidationError

from agent.errors import BundleError, ConfigError
from agent.model.manifest import FileEntry, Manifest, Signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.sig"
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_SIGNATURE_BYTES = 4096
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. ``key_id`` names the trusted key that signed it."""

    root: Path
    manifest: Manifest
    key_id: str

    def entry(self, path: str) -> FileEntry:
        """The listing of a file: its size and digest."""
        return next(entry for entry in self.manifest.files if entry.path == path)

    def read(self, path: str) -> bytes:
        """The bytes of a listed file, checked again as they are read."""
        chunks: list[bytes] = []
        _check_file(self.root, self.entry(path), chunks)
        return b"".join(chunks)


def load_bundle(root: Path, trusted_keys: Iterable[Path], today: date | None = None) -> Bundle:
    """Verify a bundle directory completely and return it.

    Args:
        root: the directory that holds ``manifest.json``.
        trusted_keys: PEM files of Ed25519 public keys; one of them must have signed the manifest.
        today: the date that ``expires`` is compared with; by default today in UTC.

    Raises:
        ConfigError: the directory or a key file is missing or no key.
        BundleError: anything about the bundle itself is wrong.
    """
    keys = {key_id(key): key for key in map(load_public_key, trusted_keys)}
    manifest_bytes = _read_manifest(root)
    signer = _verify_signature(root, manifest_bytes, keys)
    manifest = parse_manifest(manifest_bytes, where=str(root / MANIFEST_NAME))
    today = today or datetime.now(timezone.utc).date()
    if manifest.expires is not None and manifest.expires < today:
        raise BundleError(f"{root}: the bundle expired on {manifest.expires}; install a newer one")
    _check_files(root, manifest)
    return Bundle(root, manifest, signer)


def load_manifest_unsigned(root: Path) -> Manifest:
    """Check everything but the signature: for looking into a bundle, never for running it; raises as `load_bundle`."""
    manifest = parse_manifest(_read_manifest(root), where=str(root / MANIFEST_NAME))
    _check_files(root, manifest)
    return manifest


def parse_manifest(data: bytes, where: str = MANIFEST_NAME) -> Manifest:
    """Parse manifest bytes; raises BundleError that names the key, what was expected and what came."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as err:
        raise BundleError(f"{where}: {_first_fault(err)}; the bundle needs manifest schema 1") from err


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a PEM file with an Ed25519 public key; raises ConfigError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as err:
        raise ConfigError(f"{path}: cannot read the trusted key: {err.strerror}") from err
    except (ValueError, UnsupportedAlgorithm) as err:
        raise ConfigError(f"{path}: expected a PEM public key (BEGIN PUBLIC KEY), found something else") from err
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: expected an Ed25519 key, found another kind; make one with `build-models keygen`")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def _read_manifest(root: Path) -> bytes:
    if not root.is_dir():
        raise ConfigError(f"{root}: expected a bundle directory with {MANIFEST_NAME}, found none; check the path")
    return _read_small(root, MANIFEST_NAME, MAX_MANIFEST_BYTES)


def _verify_signature(root: Path, manifest_bytes: bytes, keys: dict[str, Ed25519PublicKey]) -> str:
    where = root / SIGNATURE_NAME
    if not os.path.lexists(where):
        raise BundleError(
            f"{root}: the bundle is not signed ({SIGNATURE_NAME} is missing); sign it with `build-models`"
        )
    try:
        signature = Signature.model_validate_json(_read_small(root, SIGNATURE_NAME, MAX_SIGNATURE_BYTES))
    except ValidationError as err:
        raise BundleError(f"{where}: {_first_fault(err)}; sign the bundle again with `build-models`") from err
    signer = signature.key_id
    if signer not in keys:
        trusted = ", ".join(sorted(keys)) or "none"
        raise BundleError(
            f"{root}: signed by key {signer}, which is not trusted (trusted: {trusted}); add its PEM file"
        )
    try:
        keys[signer].verify(base64.b64decode(signature.signature), manifest_bytes)
    except InvalidSignature as err:
        raise BundleError(f"{root}: the signature does not fit {MANIFEST_NAME}; it was changed after signing") from err
    return signer


def _first_fault(err: ValidationError) -> str:
    """The first thing that is wrong, on one line: key, what was expected, what came."""
    first = err.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
    key = key if key.isprintable() else repr(key)
    return f"{_short(key)}: {first['msg']}, got {_short(repr(first['input']))}"


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _check_files(root: Path, manifest: Manifest) -> None:
    """Every listed file fits its listing, and there is no other."""
    listed = {entry.path for entry in manifest.files} | {MANIFEST_NAME, SIGNATURE_NAME}
    for folder, folders, files in os.walk(root):
        for name in [*files, *(sub for sub in folders if (Path(folder) / sub).is_symlink())]:
            path = (Path(folder) / name).relative_to(root).as_posix()
            if path not in listed:
                raise BundleError(f"{root}: {path!r} is not listed in the manifest; remove it or pack the bundle again")
    for entry in manifest.files:
        _check_file(root, entry)


def _check_file(root: Path, entry: FileEntry, keep: list[bytes] | None = None) -> None:
    """Compare a file's size and digest with its listing, from the descriptor that is read."""
    digest = hashlib.sha256()
    with _open_regular(root, entry.path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            raise BundleError(f"{root}: {entry.path} has {size} bytes, the manifest says {entry.bytes}; copy it again")
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if keep is not None:
                keep.append(chunk)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(
            f"{root}: {entry.path} was changed: sha256 {digest.hexdigest()[:12]}..., the manifest says "
            f"{entry.sha256[:12]}...; copy the bundle again"
        )


def _read_small(root: Path, name: str, limit_bytes: int) -> bytes:
    with _open_regular(root, name) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise BundleError(f"{root}: {name} is larger than {limit_bytes} bytes; this is no bundle of ours")
    return data


@contextmanager
def _open_regular(root: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file below ``root`` without following links on the way; only a regular file with one name is accepted."""
    opened: list[int] = []
    *folders, last = name.split("/")
    try:
        opened.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
        for folder in folders:
            opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        # O_NONBLOCK: opening a named pipe would wait for ever.
        opened.append(os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened[-1]))
        status = os.fstat(opened[-1])
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise BundleError(f"{root}: {name} must be a regular file with one name, found a link or a special file")
        with os.fdopen(opened[-1], "rb", closefd=False) as file:
            yield file
    except OSError as err:
        raise BundleError(f"{root}: cannot read {name}: {err.strerror}; copy the bundle again") from err
    finally:
        for descriptor in opened:
            os.close(descriptor)
