"""What tests of faults share: a bundle that has been tried out, and a broker."""

from tests.support.agents import kit
from tests.support.mosquitto import mosquitto

__all__ = ["kit", "mosquitto"]
