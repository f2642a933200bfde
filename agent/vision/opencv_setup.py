"""OpenCV's process-wide settings, made by whoever puts a process together."""

from __future__ import annotations

import cv2


def set_up_opencv() -> None:
    """One thread, as its own pool would fight ONNX Runtime's for the same cores, and no lines on standard error.

    What OpenCV complains about is raised where it matters; its lines can hold addresses with passwords.
    """
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
