"""The build side: a vision model becomes a verified, quantised, signed bundle."""
