"""Families of metrics, named as tsmon's are."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    """Without a value it is only named."""
    yield GaugeMetricFamily(f"tsmon_{name}", text, value=value)


def labelled(name: str, text: str, labels: list[str], rows: Iterable[tuple[list[str], float]]) -> Metric:
    """A gauge with a value for each of `rows`."""
    family = GaugeMetricFamily(f"tsmon_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """Only ever grows."""
    return CounterMetricFamily(f"tsmon_{name}", text, value=value)
