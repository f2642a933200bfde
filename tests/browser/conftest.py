"""One browser for all pages that come from a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.devtools import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.devtools import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser
