"""From pixels to detections and tracks; pure numpy and OpenCV, no input or output."""
