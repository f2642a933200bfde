"""From float to int8: activation ranges, QDQ, signal-to-noise."""
