"""The MQTT topics of one device: ``<prefix>/<node>/...``."""

from __future__ import annotations


class Topics:
    """Names every topic this device publishes to; the constant ones are plain attributes."""

    def __init__(self, prefix: str, node: str) -> None:
        self._root = f"{prefix}/{node}"
        self.status = f"{self._root}/status"
        self.info = f"{self._root}/info"
        self.telemetry = f"{self._root}/telemetry"
        self.gaps = f"{self._root}/events"  # a gap belongs to the device: its lost events may be of any camera

    def events(self, camera_id: str) -> str:
        """Events of one camera, through the outbox."""
        return f"{self._root}/camera/{camera_id}/events"

    def detections(self, camera_id: str) -> str:
        """Every frame's detections of one camera, QoS 0."""
        return f"{self._root}/camera/{camera_id}/detections"

    def camera_state(self, camera_id: str) -> str:
        """Retained state of one camera."""
        return f"{self._root}/camera/{camera_id}/state"
