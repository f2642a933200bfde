"""What a source names, and that its password is never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.camera.source import kind_of, redact


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("rtsp://cam/1", "address"),
        ("http://cam/video", "address"),
        ("/dev/video0", "device"),
        ("/dev/v4l/by-id/usb-cam-index0", "device"),
        ("video.mp4", "file"),
        ("/srv/dev/video0", "file"),
    ],
)
def test_a_source_is_an_address_a_device_or_a_file(source: str, kind: str) -> None:
    assert kind_of(source) == kind


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://user:secret@cam:554/1", "rtsp://user:***@cam:554/1"),
        ("rtsp://user:s@cret@cam/1", "rtsp://user:***@cam/1"),  # an @ in the password
        ("rtsp://user:se/cret@cam/1", "rtsp://user:***@cam/1"),  # a / in the password
        ("http://cam/video?user=a&pwd=secret&x=1", "http://cam/video?user=a&pwd=***&x=1"),
        ("opening rtsp://u:secret@cam failed", "opening rtsp://u:***@cam failed"),
        ("rtsp://user@cam/1", "rtsp://user@cam/1"),
        ("rtsp://cam:554/1", "rtsp://cam:554/1"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_passwords_are_not_shown(source: str, shown: str) -> None:
    assert redact(source) == shown


@given(st.text(st.characters(codec="ascii", exclude_categories=("Cc", "Zs")), min_size=1))
def test_no_password_survives(password: str) -> None:
    assert redact(f"rtsp://user:{password}@camera/1") == "rtsp://user:***@camera/1"
