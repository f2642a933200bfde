"""What is published with the project: no private key, no path of the machine that made it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{16}")


def test_no_file_holds_a_private_key(project_files: list[Path]) -> None:
    assert [file for file in project_files if PRIVATE_KEY.search(file.read_bytes())] == []


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_a_private_key_would_be_found(kind: str) -> None:
    key = f"-----BEGIN {kind}PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n"
    assert PRIVATE_KEY.search(b"text before\n" + key.encode())


def test_no_file_names_this_checkouts_folder(project_files: list[Path], checkout: Path) -> None:
    if len(checkout.parts) < 3:  # a folder right under the root has a name that text may well use
        assert checkout.is_absolute()
        return
    assert [file for file in project_files if bytes(checkout) in file.read_bytes()] == []


def test_no_file_is_larger_than_a_clone_should_carry(project_files: list[Path]) -> None:
    assert [file for file in project_files if file.stat().st_size > 4_000_000] == []
