"""What /metrics reports: the view, and tsmon's own figures."""

from typing import TYPE_CHECKING

from tsmon import __version__
from tsmon.server.metrics import ChannelFigures, OwnFigures, Scrape

if TYPE_CHECKING:
    from tsmon.daemon.parts import Parts


async def scrape(parts: "Parts") -> Scrape:
    """Everything that one scrape reports, now."""
    figures = await parts.api.figures.get()
    alerts = tuple(parts.monitor.alerts.values())
    return Scrape(parts.monitor.view, alerts, figures, _own(parts), parts.settings.metrics.per_node)


def _own(parts: "Parts") -> OwnFigures:
    influx = parts.outlet.influx
    contents = influx.contents if influx is not None else None
    return OwnFigures(
        version=__version__,
        monitor=parts.settings.monitor_name,
        started=parts.monitor.started.wall,
        polls=parts.collector.polls,
        poll_failures=parts.collector.failures,
        poll_seconds=parts.collector.poll_seconds,
        store_failing=bool(parts.backlog.error),
        store_waiting=parts.backlog.waiting,
        stream_clients=parts.api.live.clients,
        channels=tuple(
            ChannelFigures(row["name"], bool(row["error"]), row["waiting"], row["delivered"], row["failed"])
            for row in parts.notifier.readiness()
        ),
        outbox_requests=contents.requests if contents is not None else None,
        outbox_lines=contents.lines if contents is not None else 0,
        outbox_oldest=contents.oldest if contents is not None else None,
        lines_dropped=influx.dropped if influx is not None else 0,
        lines_quarantined=influx.quarantined if influx is not None else 0,
        influx_failing=influx is not None and bool(influx.error),
    )
