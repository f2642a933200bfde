"""What an agent is made of, each part from its section of the configuration; `agent.app` puts them together."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.delivery.clock_sync import ClockSync
from agent.delivery.dry_run import DryRunPublisher
from agent.delivery.events import ModelRef
from agent.delivery.outbox import Outbox
from agent.delivery.payload import Origin
from agent.delivery.publisher import MqttPublisher, entry_encoder
from agent.delivery.topics import Topics
from agent.model.activate import ActiveModel, activate
from agent.model.canary import Canary
from agent.model.session import SessionOptions, physical_cores
from agent.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import AgentConfig, RuntimeConfig
    from agent.delivery.protocol import Publisher
    from agent.frame import Mailbox
    from agent.tasks import Watcher
    from agent.turns import Turns


def activate_model(config: AgentConfig) -> ActiveModel:
    """The config's model, verified, tried out and warmed up."""
    return activate(
        config.model.bundle,
        config.model.trusted_keys,
        session_options(config.runtime),
        config.model.variant,
        Canary(config.state_dir / "canary.json", config.model.golden_timeout_s),
        config.runtime.warm_up_runs,
    )


def session_options(runtime: RuntimeConfig) -> SessionOptions:
    """The config's runtime section, with "auto" resolved for this machine."""
    threads = physical_cores() if runtime.threads == "auto" else runtime.threads
    return SessionOptions(tuple(runtime.providers), threads, runtime.spinning)


def origin_of(model: ActiveModel) -> Origin:
    """What payloads say of this run: a random boot id (objects of another boot have ended) and the model."""
    manifest = model.bundle.manifest
    return Origin(secrets.token_hex(4), ModelRef(manifest.name, manifest.version, model.variant.id))


def make_pipeline(
    config: AgentConfig,
    model: ActiveModel,
    turns: Turns,
    watchers: Mapping[str, Watcher],
    mailbox: Mailbox,
    publisher: Publisher,
) -> Pipeline:
    """The per-frame loop over the config's cameras, each with its watcher."""
    return Pipeline(
        model.session,
        model.resizer,
        turns,
        mailbox,
        watchers,
        publisher,
        SystemClock(),
        detections_enabled=config.mqtt.detections.enabled,
    )


def make_outbox(config: AgentConfig, node: str, origin: Origin) -> Outbox:
    """The durable queue in the state folder.

    Raises:
        ConfigError: another agent uses this folder.
    """
    clock = SystemClock()
    encode = entry_encoder(Topics(config.mqtt.prefix, node), origin, ClockSync(clock.monotonic_s))
    path = config.state_dir / "outbox.sqlite"
    return Outbox(path, node=node, max_size_mib=config.outbox.max_size_mib, encode=encode, clock=clock)


def make_publisher(
    config: AgentConfig, node: str, origin: Origin, outbox: Outbox | None
) -> MqttPublisher | DryRunPublisher:
    """Delivery to the broker; without an outbox it prints what would be published."""
    topics, clock = Topics(config.mqtt.prefix, node), SystemClock()
    clock_sync = ClockSync(clock.monotonic_s)
    if outbox is None:
        return DryRunPublisher(topics, origin, node=node, is_clock_synced=clock_sync, clock=clock)
    return MqttPublisher(config.mqtt, outbox, topics, origin, node=node, is_clock_synced=clock_sync, clock=clock)
