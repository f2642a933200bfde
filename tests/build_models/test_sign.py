"""Keys are made once, kept private, never replaced; a signature fits exactly the bytes that were signed."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from agent.errors import BundleError
from agent.model.bundle import load_bundle
from build_models.errors import RecipeError
from build_models.sign import generate_keys, load_private_key, signature_file
from tests.support.bundles import make_bundle

if TYPE_CHECKING:
    from pathlib import Path


def private_pem(key: Ed25519PrivateKey, encryption: KeySerializationEncryption) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_only_the_owner_may_read_a_new_private_key(tmp_path: Path) -> None:
    private, public, _ = generate_keys(tmp_path / "keys" / "mine")
    assert (private.name, public.name) == ("mine.private.pem", "mine.public.pem")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_what_a_new_key_signs_the_agent_trusts(tmp_path: Path) -> None:
    private, public, identity = generate_keys(tmp_path / "mine")
    bundle = make_bundle(tmp_path)
    manifest = (bundle.root / "manifest.json").read_bytes()
    (bundle.root / "manifest.sig").write_bytes(signature_file(manifest, load_private_key(private)))
    assert load_bundle(bundle.root, [public]).key_id == identity


def test_a_signature_does_not_fit_other_bytes(tmp_path: Path) -> None:
    private, public, _ = generate_keys(tmp_path / "mine")
    bundle = make_bundle(tmp_path)
    manifest = (bundle.root / "manifest.json").read_bytes()
    (bundle.root / "manifest.sig").write_bytes(signature_file(manifest + b" ", load_private_key(private)))
    with pytest.raises(BundleError, match="the signature does not fit"):
        load_bundle(bundle.root, [public])


def test_two_keys_are_never_the_same(tmp_path: Path) -> None:
    identities = {generate_keys(tmp_path / name)[2] for name in ("one", "two")}
    assert len(identities) == 2


@pytest.mark.parametrize("there", ["mine.private.pem", "mine.public.pem"])
def test_a_key_is_never_replaced_nor_half_of_one_written(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(RecipeError, match=f"{there}: there is a key already"):
        generate_keys(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="cannot write the key: "):
        generate_keys(tmp_path / "file" / "mine")


def test_without_a_key_the_command_that_makes_one_is_named() -> None:
    with pytest.raises(RecipeError, match=r"no key was given; make one with `build-models keygen"):
        load_private_key(None)


def test_a_missing_key_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.pem: cannot read the signing key: No such file"):
        load_private_key(tmp_path / "none.pem")


def test_what_is_no_private_key_is_told(tmp_path: Path) -> None:
    _, public, _ = generate_keys(tmp_path / "mine")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(private_pem(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"word")))
    for path in (public, locked):
        with pytest.raises(RecipeError, match="expected a PEM private key without password"):
            load_private_key(path)


def test_a_key_of_another_kind_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ec.pem"
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    with pytest.raises(RecipeError, match="expected an Ed25519 private key"):
        load_private_key(path)
