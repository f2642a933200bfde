"""edge-agent: runs a signed model bundle on camera frames and publishes what it sees over MQTT."""

__version__ = "0.1.0"
