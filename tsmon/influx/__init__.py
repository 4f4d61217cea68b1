"""InfluxDB: samples and events through a durable outbox."""

from tsmon.influx.points import lines_of
from tsmon.influx.sender import Influx

__all__ = ["Influx", "lines_of"]
