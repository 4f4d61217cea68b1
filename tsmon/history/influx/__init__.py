"""InfluxDB: samples and events through a durable outbox, and back."""

from tsmon.history.influx.points import lines_of
from tsmon.history.influx.reading import InfluxReader, ReadError
from tsmon.history.influx.sender import Influx

__all__ = ["Influx", "InfluxReader", "ReadError", "lines_of"]
