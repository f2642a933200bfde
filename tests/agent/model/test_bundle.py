from __future__ import annotations

import json
import os
import shutil
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BundleError, ConfigError
from agent.model.bundle import (
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    Bundle,
    _open_regular,
    load_bundle,
    load_manifest_unsigned,
    parse_manifest,
)
from tests.support.bundles import (
    GOLDEN_PATH,
    MODEL_PATH,
    REPORT_PATH,
    SignedBundle,
    make_bundle,
    signature_of,
    write_manifest,
    write_public_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def signed(tmp_path: Path) -> SignedBundle:
    return make_bundle(tmp_path)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> SignedBundle:
    """A bundle for property tests, which must leave it as they found it."""
    return make_bundle(tmp_path_factory.mktemp("lasting"))


def load(signed: SignedBundle, today: date | None = None) -> Bundle:
    return load_bundle(signed.root, [signed.public_key], today)


def refusal(signed: SignedBundle) -> str:
    """The message with which a bundle is refused: one line that begins with the path."""
    with pytest.raises(BundleError) as caught:
        load(signed)
    message = str(caught.value)
    assert message.startswith(str(signed.root))
    assert message.isprintable()
    return message


def test_an_untouched_bundle_loads_and_names_its_key(signed: SignedBundle) -> None:
    bundle = load(signed)
    assert bundle.key_id == signature_of(b"", signed.key)["key_id"]
    assert bundle.manifest.name == "tiny"
    assert bundle.read(MODEL_PATH) == (signed.root / MODEL_PATH).read_bytes()
    assert load_manifest_unsigned(signed.root) == bundle.manifest


def test_one_of_several_trusted_keys_is_enough(signed: SignedBundle, tmp_path: Path) -> None:
    other = write_public_key(tmp_path / "other.pem", Ed25519PrivateKey.generate())
    assert load_bundle(signed.root, [other, signed.public_key]).key_id == load(signed).key_id


def test_a_bundle_may_be_reached_through_a_link(signed: SignedBundle, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(signed.root)
    assert load_bundle(tmp_path / "current", [signed.public_key]).manifest == load(signed).manifest


# --- signature


def test_an_unsigned_bundle_is_refused_but_can_be_looked_into(signed: SignedBundle) -> None:
    (signed.root / "manifest.sig").unlink()
    assert "is not signed" in refusal(signed)
    assert load_manifest_unsigned(signed.root).name == "tiny"


def test_a_key_that_is_not_trusted_is_named(signed: SignedBundle, tmp_path: Path) -> None:
    trusted = load(signed).key_id
    stranger = Ed25519PrivateKey.generate()
    write_manifest(signed.root, (signed.root / "manifest.json").read_bytes(), stranger)
    message = refusal(signed)
    assert signature_of(b"", stranger)["key_id"] in message
    assert f"trusted: {trusted}" in message
    with pytest.raises(BundleError, match="trusted: none"):
        load_bundle(signed.root, [])


def test_a_strangers_signature_under_a_trusted_id_is_refused(signed: SignedBundle) -> None:
    manifest = (signed.root / "manifest.json").read_bytes()
    forged = signature_of(manifest, Ed25519PrivateKey.generate())
    forged["key_id"] = load(signed).key_id
    (signed.root / "manifest.sig").write_text(json.dumps(forged))
    assert "does not fit" in refusal(signed)


def test_the_signature_is_checked_before_the_manifest_is_understood(signed: SignedBundle) -> None:
    (signed.root / "manifest.json").write_bytes(b"not even JSON")
    assert "does not fit" in refusal(signed)
    write_manifest(signed.root, b"not even JSON", signed.key)
    assert "Invalid JSON" in refusal(signed)


def test_a_manifest_changed_at_any_byte_is_refused(lasting: SignedBundle) -> None:
    path = lasting.root / "manifest.json"
    original = path.read_bytes()
    try:
        for position in range(len(original)):
            changed = bytearray(original)
            changed[position] ^= 1
            path.write_bytes(changed)
            assert "does not fit" in refusal(lasting)
    finally:
        path.write_bytes(original)
    load(lasting)


@pytest.mark.parametrize("change", [lambda data: data + b"\n", lambda data: data[:-1], lambda data: b" " + data])
def test_a_manifest_of_another_length_is_refused(signed: SignedBundle, change: Callable[[bytes], bytes]) -> None:
    path = signed.root / "manifest.json"
    path.write_bytes(change(path.read_bytes()))
    assert "does not fit" in refusal(signed)


def test_a_signature_file_cut_anywhere_is_refused(lasting: SignedBundle) -> None:
    path = lasting.root / "manifest.sig"
    original = path.read_bytes()
    try:
        for length in range(len(original)):
            path.write_bytes(original[:length])
            assert "manifest.sig: " in refusal(lasting)
    finally:
        path.write_bytes(original)


def altered(record: dict[str, Any], **changes: object) -> bytes:
    return json.dumps({**record, **changes}).encode()


SIGNATURE_FILES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "random bytes": lambda record: bytes(range(256)),
    "no JSON": lambda record: b"signed: yes",
    "a list": lambda record: b"[]",
    "null": lambda record: b"null",
    "deep JSON": lambda record: b"[" * MAX_SIGNATURE_BYTES,
    "an unknown key": lambda record: altered(record, x=1),
    "no algorithm": lambda record: json.dumps({k: record[k] for k in ("key_id", "signature")}).encode(),
    "another algorithm": lambda record: altered(record, algorithm="none"),
    "an algorithm that is a list": lambda record: altered(record, algorithm=["ed25519"]),
    "a key id that is a number": lambda record: altered(record, key_id=7),
    "a key id of many lines": lambda record: altered(record, key_id="\n" * 500),
    "a signature of hex digits": lambda record: altered(record, signature="00" * 64),
    "an empty signature": lambda record: altered(record, signature=""),
    "a signature with a line break": lambda record: json.dumps(
        {**record, "signature": record["signature"] + "\n"}
    ).encode(),
}


@pytest.mark.parametrize("case", SIGNATURE_FILES)
def test_a_signature_file_is_refused_when_it_holds(signed: SignedBundle, case: str) -> None:
    path = signed.root / "manifest.sig"
    record = json.loads(path.read_bytes())
    content = SIGNATURE_FILES[case](record)
    path.write_bytes(content)
    assert "manifest.sig: " in refusal(signed)
    path.write_bytes(json.dumps(record).encode())
    load(signed)


@pytest.mark.parametrize(
    ("name", "limit_bytes"), [("manifest.json", MAX_MANIFEST_BYTES), ("manifest.sig", MAX_SIGNATURE_BYTES)]
)
def test_a_huge_file_is_refused_before_it_is_read(signed: SignedBundle, name: str, limit_bytes: int) -> None:
    with (signed.root / name).open("wb") as file:
        file.truncate(2**36)  # 64 GiB, without a block on the disk
    assert f"{name} is larger than {limit_bytes} bytes" in refusal(signed)


# --- files


@given(st.data())
def test_one_flipped_bit_anywhere_in_a_file_is_noticed(lasting: SignedBundle, data: st.DataObject) -> None:
    path = lasting.root / data.draw(st.sampled_from([MODEL_PATH, GOLDEN_PATH, REPORT_PATH]))
    original = path.read_bytes()
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(changed)
        message = refusal(lasting)
        assert path.relative_to(lasting.root).as_posix() in message
        assert "was changed" in message
    finally:
        path.write_bytes(original)


def listed_entry(manifest: dict[str, Any], path: str) -> dict[str, Any]:
    entry: dict[str, Any] = next(entry for entry in manifest["files"] if entry["path"] == path)
    return entry


def replace_with_link(root: Path, tmp_path: Path) -> None:
    (root / MODEL_PATH).rename(tmp_path / "elsewhere.onnx")
    (root / MODEL_PATH).symlink_to(tmp_path / "elsewhere.onnx")


def replace_with_hard_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.onnx").hardlink_to(root / MODEL_PATH)


def replace_with_pipe(root: Path, tmp_path: Path) -> None:
    (root / MODEL_PATH).unlink()
    os.mkfifo(root / MODEL_PATH)


def replace_with_folder(root: Path, tmp_path: Path) -> None:
    (root / MODEL_PATH).unlink()
    (root / MODEL_PATH).mkdir()


def replace_folder_with_file(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "models")
    (root / "models").write_bytes(b"")


def link_the_folder(root: Path, tmp_path: Path) -> None:
    (root / "models").rename(tmp_path / "models")
    (root / "models").symlink_to(tmp_path / "models")


def link_the_manifest(root: Path, tmp_path: Path) -> None:
    (root / "manifest.json").rename(tmp_path / "manifest.json")
    (root / "manifest.json").symlink_to(tmp_path / "manifest.json")


def add(path: str) -> Callable[[Path, Path], object]:
    def add_file(root: Path, tmp_path: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")

    return add_file


FAULTS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "misses a file": (lambda root, _: (root / MODEL_PATH).unlink(), MODEL_PATH),
    "misses a folder": (lambda root, _: shutil.rmtree(root / "models"), MODEL_PATH),
    "misses its manifest": (lambda root, _: (root / "manifest.json").unlink(), "manifest.json"),
    "has a truncated file": (lambda root, _: os.truncate(root / MODEL_PATH, 10), "has 10 bytes"),
    "has a file that grew": (lambda root, _: os.truncate(root / MODEL_PATH, 10**6), "has 1000000 bytes"),
    "has a link for a file": (replace_with_link, MODEL_PATH),
    "has a file with a second name elsewhere": (replace_with_hard_link, MODEL_PATH),
    "has a pipe for a file": (replace_with_pipe, MODEL_PATH),
    "has a folder for a file": (replace_with_folder, MODEL_PATH),
    "has a link for a folder": (link_the_folder, "models"),
    "has a link for its manifest": (link_the_manifest, "manifest.json"),
    "has a file for a folder": (replace_folder_with_file, "models"),
    "has one file more": (add("extra.bin"), "extra.bin"),
    "has one file more deep inside": (add("models/a/b/extra.bin"), "models/a/b/extra.bin"),
    "has one hidden file more": (add(".hidden"), ".hidden"),
    "has one file more whose name breaks the line": (add("two\nlines"), "two\\nlines"),
    "has one link more": (lambda root, tmp_path: (root / "extra").symlink_to(tmp_path / "nowhere"), "extra"),
    "has one linked folder more": (lambda root, tmp_path: (root / "extra").symlink_to(tmp_path), "extra"),
    "has one pipe more": (lambda root, _: os.mkfifo(root / "extra"), "extra"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_bundle_is_refused_when_it(signed: SignedBundle, tmp_path: Path, case: str) -> None:
    fault, named = FAULTS[case]
    load(signed)
    fault(signed.root, tmp_path)
    assert named in refusal(signed)


def test_a_wrong_size_in_a_signed_manifest_is_noticed(tmp_path: Path) -> None:
    signed = make_bundle(tmp_path, change=lambda manifest: listed_entry(manifest, MODEL_PATH).update(bytes=3))
    assert "the manifest says 3" in refusal(signed)


def test_a_wrong_digest_in_a_signed_manifest_is_noticed(tmp_path: Path) -> None:
    signed = make_bundle(tmp_path, change=lambda manifest: listed_entry(manifest, MODEL_PATH).update(sha256="a" * 64))
    assert "aaaaaaaaaaaa" in refusal(signed)


def test_a_file_changed_after_loading_is_noticed_when_it_is_read(signed: SignedBundle) -> None:
    bundle = load(signed)
    path = signed.root / MODEL_PATH
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(BundleError, match="was changed"):
        bundle.read(MODEL_PATH)


def test_a_card_that_fails_while_it_is_read_is_told_as_such() -> None:
    # No card that fails is at hand; reading address 0 of a process gives the same error.

    with (
        pytest.raises(BundleError, match="/proc/self: cannot read mem: Input/output error"),
        _open_regular(Path("/proc/self"), "mem") as file,
    ):
        file.read(1)


def test_no_descriptor_is_left_open(signed: SignedBundle, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - the names are numbers that come and go
    load(signed)
    for name in ("has a link for a file", "has a pipe for a file", "has a folder for a file"):
        folder = tmp_path / name.replace(" ", "-")
        other = make_bundle(folder)
        FAULTS[name][0](other.root, folder)
        refusal(other)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


# --- expiry


@pytest.mark.parametrize(
    ("today", "accepted"),
    [
        (date(1970, 1, 1), True),  # a board that has not heard the time yet
        (date(2026, 6, 29), True),
        (date(2026, 6, 30), True),  # the last day counts
        (date(2026, 7, 1), False),
    ],
)
def test_a_bundle_runs_until_the_end_of_the_day_it_expires(tmp_path: Path, today: date, accepted: bool) -> None:
    signed = make_bundle(tmp_path, change=lambda manifest: manifest.update(expires="2026-06-30"))
    if accepted:
        assert load(signed, today).manifest.expires == date(2026, 6, 30)
    else:
        with pytest.raises(BundleError, match="expired on 2026-06-30"):
            load(signed, today)


def test_by_default_the_date_is_today(tmp_path: Path) -> None:
    assert "expired" in refusal(make_bundle(tmp_path / "a", change=lambda m: m.update(expires="2001-01-01")))
    load(make_bundle(tmp_path / "b", change=lambda m: m.update(expires="9999-12-31")))


# --- what the user must mend


def test_a_path_without_a_bundle_is_the_users_to_mend(signed: SignedBundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: expected a bundle directory"):
        load_bundle(tmp_path / "nowhere", [signed.public_key])
    with pytest.raises(ConfigError, match="expected a bundle directory"):
        load_manifest_unsigned(signed.public_key)


def test_a_folder_that_vanishes_is_a_refusal(signed: SignedBundle) -> None:
    bundle = load(signed)
    shutil.rmtree(signed.root)
    with pytest.raises(BundleError, match="cannot read"):
        bundle.read(MODEL_PATH)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot read the trusted key"),
        (b"", "expected a PEM public key"),
        (b"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n", "expected a PEM public key"),
        (private_pem(Ed25519PrivateKey.generate()), "expected a PEM public key"),
        (
            generate_ec_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "expected an Ed25519 key",
        ),
    ],
    ids=["missing", "empty", "damaged", "private", "another kind"],
)
def test_a_trusted_key_that_is_none_is_the_users_to_mend(
    signed: SignedBundle, tmp_path: Path, content: bytes | None, expected: str
) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_bundle(signed.root, [path])
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


def test_the_manifest_on_disk_is_the_one_that_was_signed(signed: SignedBundle) -> None:
    assert parse_manifest((signed.root / "manifest.json").read_bytes()) == load(signed).manifest
