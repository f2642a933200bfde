"""Every error the product raises on purpose, in one tree.

    EdgeAgentError
    ├── ConfigError       the user must change something: a config, an argument, a path     exit 2
    ├── PictureError      a picture file cannot be used; another one is needed              exit 2
    ├── BundleError       the bundle is refused; an active model stays active               exit 3
    ├── RetryableError    the world may heal: camera, broker; back off with jitter, retry   exit 4
    │   ├── CameraError
    │   └── BrokerError
    └── FatalError        this process cannot go on; systemd restarts it                    exit 1

Foreign exceptions are wrapped where they enter the product, with ``raise ... from err``.
A message says what was expected, what came, where, and what to do; it is one line.
"""

from __future__ import annotations


class EdgeAgentError(Exception):
    """The root: a message for people and the exit code of a command that ends with it."""

    exit_code = 1


def one_line(err: Exception) -> str:
    """A foreign exception's message on one line of at most 300 characters, to be part of ours."""
    return " ".join(str(err).split())[:300]


class ConfigError(EdgeAgentError):
    """The user must change something; the message names the place (``file:line:col: key: ...`` for a config)."""

    exit_code = 2


class PictureError(EdgeAgentError):
    """A picture file cannot be used; its kinds, and what to do, are in `agent.vision.picture_file`."""

    exit_code = 2


class BundleError(EdgeAgentError):
    """A bundle or one of its variants is refused; whatever model was active stays so."""

    exit_code = 3


class RetryableError(EdgeAgentError):
    """Something outside is unavailable for now; the caller backs off and tries again."""

    exit_code = 4


class CameraError(RetryableError):
    """A camera cannot be opened or gives no frames."""


class BrokerError(RetryableError):
    """The MQTT broker cannot be reached or refuses us."""


class FatalError(EdgeAgentError):
    """The process cannot continue; it ends with exit code 1 and its supervisor restarts it."""
