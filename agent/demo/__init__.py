"""The demo: synthetic scenes, the demo bundle and the live view."""
