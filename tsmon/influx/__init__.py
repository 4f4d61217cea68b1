"""InfluxDB: samples and events through a durable outbox, and back."""

from tsmon.influx.points import lines_of
from tsmon.influx.reading import InfluxReader, ReadError
from tsmon.influx.sender import Influx

__all__ = ["Influx", "InfluxReader", "ReadError", "lines_of"]
