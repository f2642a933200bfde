"""A web server over a tiny bundle, in this process."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastapi", reason="needs the web extra")

from agent.config import DetectConfig, WebConfig
from agent.model.activate import ActiveModel, activate
from agent.model.session import SessionOptions
from agent.parts import origin_of
from agent.predict import Predictor
from agent.turns import Turns
from agent.web.server import WebServer
from agent.web.service import Served, Service
from tests.support.bundles import make_bundle
from tests.support.http import ask
from tests.support.tiny_models import classify_model, segment_model
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agents import Kit


def served(model: ActiveModel) -> Served:
    return Served(Predictor(model, DetectConfig(), Turns(time.monotonic)), origin_of(model))


@contextmanager
def running(service: Service, **config: Any) -> Iterator[int]:
    """The port of a server that answers."""
    server = WebServer(service, WebConfig.model_validate({"port": 0, **config}))
    server.start()
    try:
        assert wait_until(lambda: ask(server.port, "/healthz").status in (200, 503))
        yield server.port
    finally:
        assert server.stop(10.0)
        assert server.failure is None


@pytest.fixture(scope="session")
def detector(kit: Kit) -> ActiveModel:
    return activate(kit.bundle.root, [kit.bundle.public_key], SessionOptions())


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> ActiveModel:
    folder = tmp_path_factory.mktemp("classifier")
    made = make_bundle(folder, tiny=classify_model(), change=lambda manifest: manifest.update(name="colours"))
    return activate(made.root, [made.public_key], SessionOptions())


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> ActiveModel:
    folder = tmp_path_factory.mktemp("segmenter")
    made = make_bundle(folder, tiny=segment_model(), change=lambda manifest: manifest.update(name="ground"))
    return activate(made.root, [made.public_key], SessionOptions())


@pytest.fixture(scope="session")
def service(detector: ActiveModel, classifier: ActiveModel, segmenter: ActiveModel) -> Service:
    return Service({model.bundle.manifest.name: served(model) for model in (detector, classifier, segmenter)})


@pytest.fixture(scope="session")
def port(service: Service) -> Iterator[int]:
    """A server with a detector, the default one, the classifier ``colours`` and the segmenter ``ground``."""
    with running(service, max_upload_mib=1, max_megapixels=1.0) as port:
        yield port
