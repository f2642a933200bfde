"""The typed configuration: frozen models, every key with its default, unit and meaning.

``configs/agent.yaml`` documents each key; reading YAML with line numbers lives in ``agent/config_file.py``.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from agent.camera.source import SCHEMES, kind_of

SLUG_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_HEADER_PATTERN = r"^[\x21-\x7e]+$"  # what an HTTP header can carry unchanged
TOPIC_PATTERN = r"^[^#+\x00/]+(/[^#+\x00/]+)*$"


def _in_config_folder(path: Path, info: ValidationInfo) -> Path:
    if path == Path():
        raise ValueError("expected a path, got an empty text")
    return _folder_of(info) / path


def _folder_of(info: ValidationInfo) -> Path:
    """Relative paths are meant from the config file's folder, which whoever reads the file passes as the context."""
    return Path((info.context or {}).get("folder", ""))


Slug = Annotated[str, Field(pattern=SLUG_PATTERN)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0, le=1)]
Topic = Annotated[str, Field(pattern=TOPIC_PATTERN, max_length=128)]
LocalPath = Annotated[Path, Field(strict=False), AfterValidator(_in_config_folder)]


class Section(BaseModel):
    """What all sections share: frozen, unknown keys refused, no silent conversions such as "yes" to true."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), hide_input_in_errors=True
    )


class ModelConfig(Section):
    """Which bundle runs, and whose signatures count."""

    bundle: LocalPath = Field(description="bundle directory")
    trusted_keys: Annotated[list[LocalPath], Field(min_length=1)] = Field(
        description="PEM files with the Ed25519 public keys whose bundles are accepted"
    )
    variant: str = Field("auto", description='a variant id, or "auto": the first one that this device can run')
    golden_timeout_s: Seconds = Field(60.0, description="limit for the first golden replay, in a child process")


class RuntimeConfig(Section):
    """How ONNX Runtime runs."""

    providers: Annotated[list[Literal["cpu", "cuda", "tensorrt"]], Field(min_length=1)] = Field(
        ["cpu"], description="execution providers that may be used, preferred first"
    )
    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = Field(
        "auto", description='inference threads; "auto": one per physical core'
    )
    spinning: bool = Field(False, description="threads busy-wait between inferences: less latency, a core burnt each")
    warm_up_runs: Annotated[int, Field(ge=0, le=100)] = Field(2, description="inferences before the first frame")


class CameraConfig(Section):
    """One source of frames."""

    id: Slug = Field(description="name in topics and payloads")
    engine: Literal["opencv", "synthetic"] = Field("opencv", description="how frames are captured")
    source: str = Field(
        "", repr=False, description="opencv: a file, an rtsp:// or http:// address, /dev/videoN; synthetic: empty"
    )
    pace: Literal["native", "max", "lockstep"] = Field(
        "native", description="files and scenes: in real time, as fast as possible, or lockstep: no frame dropped"
    )
    loop: bool = Field(False, description="files: start again at the end")
    width: Annotated[int, Field(ge=16, le=8192)] | None = Field(None, description="V4L2 and synthetic: width in pixels")
    height: Annotated[int, Field(ge=16, le=8192)] | None = Field(None, description="V4L2 and synthetic: height")
    fps: Annotated[float, Field(gt=0, le=1000)] | None = Field(None, description="V4L2 and synthetic: frames a second")
    seed: Annotated[int, Field(ge=0)] = Field(1, description="synthetic: seed of the scene")
    open_timeout_s: Seconds = Field(10.0, description="network sources: limit for opening")
    read_timeout_s: Seconds = Field(5.0, description="network sources: limit for one frame")

    @field_validator("source")
    @classmethod
    def _file_is_in_config_folder(cls, source: str, info: ValidationInfo) -> str:
        kind = kind_of(source)
        if kind == "address" and source.split("://", maxsplit=1)[0].lower() not in SCHEMES:
            addresses = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f"expected a file, /dev/videoN or an address with {addresses}, got another address")
        return str(_folder_of(info) / source) if kind == "file" and source else source

    @model_validator(mode="after")
    def _keys_fit_the_source(self) -> CameraConfig:
        if self.engine == "opencv" and not self.source:
            raise _misfit("source", 'engine "opencv" needs one: a file, an rtsp:// address or /dev/videoN')
        if self.engine == "synthetic" and self.source:
            raise _misfit("source", 'engine "synthetic" takes none; remove it, and use seed to vary the scene')
        if self.engine == "opencv" and kind_of(self.source) != "file" and self.pace != "native":
            raise _misfit("pace", f'"{self.pace}" is for files and scenes; remove it, a live camera sets its own pace')
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _misfit(key: str, message: str) -> PydanticCustomError:
    """An error of one key that only shows when the whole section is known."""
    return PydanticCustomError("misfit", "{message}", {"key": key, "message": message})


class DetectConfig(Section):
    """Thresholds of detection; null takes the bundle's default."""

    score_threshold: Share | None = Field(None, description="detections below it are not reported")
    iou_threshold: Share | None = Field(
        None, description="of two boxes of one class that overlap more, the better stays"
    )
    max_detections: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="most detections of a frame")
    labels: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = Field(
        None, description="labels that count, such as [person, car]; null: all of the bundle"
    )


class TrackingConfig(Section):
    """When detections become one object, and when it has gone."""

    iou_threshold: Share = Field(0.3, description="least overlap of an object's boxes in two frames")
    confirm_frames: Annotated[int, Field(ge=1, le=1000)] = Field(3, description="frames seen before the new event")
    lost_after_s: Seconds = Field(2.0, description="unseen for so long, an object has ended")
    update_interval_s: Seconds = Field(5.0, description="least time between two update events of one object")


class OutboxConfig(Section):
    """The durable queue between events and broker."""

    max_size_mib: Annotated[int, Field(ge=1, le=65_536)] = Field(64, description="disk for unsent events")


class TlsConfig(Section):
    """TLS towards the broker."""

    ca_file: LocalPath | None = Field(None, description="CA certificates; null: those of the system")
    cert_file: LocalPath | None = Field(None, description="client certificate")
    key_file: LocalPath | None = Field(None, description="key of the client certificate")

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> TlsConfig:
        if (self.cert_file is None) != (self.key_file is None):
            missing, given = ("key_file", "cert_file") if self.key_file is None else ("cert_file", "key_file")
            raise _misfit(missing, f"{given} needs it; add it, or remove {given}")
        return self


class DetectionsConfig(Section):
    """The topic with every frame's detections (QoS 0)."""

    enabled: bool = Field(False, description="publish them")
    max_rate_hz: Annotated[float, Field(gt=0, le=1000)] = Field(10.0, description="most messages a second and camera")


class MqttConfig(Section):
    """The broker and what goes to it."""

    host: str = Field("127.0.0.1", min_length=1, description="broker")
    port: Annotated[int, Field(ge=1, le=65_535)] = Field(1883, description="its port; 8883 is usual with TLS")
    username: str | None = Field(None, description="user name")
    password: str | None = Field(
        None, description="password; write ${file:/path} or ${VAR} rather than the word", repr=False
    )
    tls: TlsConfig | None = Field(None, description="null: no TLS")
    protocol: Literal["5", "3.1.1"] = Field("5", description="MQTT version; 5 falls back to 3.1.1 when refused")
    prefix: Topic = Field("edge", description="first level of all topics")
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = Field(30, description="MQTT keep-alive")
    detections: DetectionsConfig = DetectionsConfig()
    telemetry_interval_s: Seconds = Field(30.0, description="time between two telemetry messages")


class WebConfig(Section):
    """The web API and the page with the live pictures."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; another than this needs a token")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8080, description="its port; 0: a free one, told in the log")
    token: Annotated[str, Field(min_length=16, pattern=_HEADER_PATTERN)] | None = Field(
        None, description="who knows it gets in: write ${file:/path} or ${VAR} rather than the word", repr=False
    )
    max_upload_mib: Annotated[int, Field(ge=1, le=64)] = Field(
        8, description="most bytes of a picture sent for inference"
    )
    max_megapixels: Annotated[float, Field(gt=0, le=200)] = Field(25.0, description="most pixels of such a picture")
    stream_fps: Annotated[float, Field(gt=0, le=60)] = Field(
        10.0, description="most pictures a second of a live stream"
    )
    stream_width: Annotated[int, Field(ge=64, le=8192)] = Field(
        960, description="a wider camera is scaled down to this"
    )

    @model_validator(mode="after")
    def _strangers_need_a_token(self) -> WebConfig:
        if self.token is None and not is_loopback(self.host):
            raise _misfit("token", f"host {self.host!r} lets other machines in, which needs a token; add one")
        return self


class LoggingConfig(Section):
    """What is logged to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity")
    format: Literal["text", "json"] = Field("text", description="json: one object a line")


class AgentConfig(Section):
    """The whole configuration of an agent."""

    node: Slug | Literal["auto"] = Field("auto", description='this device in topics; "auto": from the machine id')
    state_dir: LocalPath = Field(Path("/var/lib/edge-agent"), description="outbox and remembered checks")
    model: ModelConfig
    runtime: RuntimeConfig = RuntimeConfig()
    cameras: Annotated[list[CameraConfig], Field(min_length=1, max_length=64)]
    detect: DetectConfig = DetectConfig()
    tracking: TrackingConfig = TrackingConfig()
    outbox: OutboxConfig = OutboxConfig()
    mqtt: MqttConfig = MqttConfig()
    web: WebConfig | None = Field(None, description="null: no web API")
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _camera_ids_are_unique(self) -> AgentConfig:
        ids = [camera.id for camera in self.cameras]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise _misfit("cameras", f"expected different ids, got more than once: {', '.join(twice)}")
        return self
