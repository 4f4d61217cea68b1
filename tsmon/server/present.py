"""What the answers about the present are made of: view, alerts, incidents, summary, figures."""

from collections.abc import Callable, Mapping

from tsmon import __version__
from tsmon.base.clock import rfc3339
from tsmon.classify import Classifier
from tsmon.config import Settings
from tsmon.monitor.alerts import Alert
from tsmon.monitor.incidents import Incident, join_alerts
from tsmon.monitor.ledger import Published
from tsmon.monitor.monitor import Monitor
from tsmon.monitor.state import View
from tsmon.server.answers import IncidentsAnswer, SummaryAnswer
from tsmon.server.figures import FigureCache
from tsmon.server.incidents import NotifiedAt, SightReturned, incident_answer, sight_returned
from tsmon.server.render import summary_answer


class PresentAnswers:
    """The monitor as the routes see it."""

    def __init__(
        self,
        settings: Settings,
        monitor: Monitor,
        figures: FigureCache,
        *,
        source_name: Callable[[], str],
        notified_at: Callable[[], NotifiedAt],
        demo: bool,
    ) -> None:
        self.settings = settings
        self.figures = figures
        self.changes = 0
        """Grows with whatever changes the history besides time."""
        self.newest_event = 0
        """The id of the last event of this run, 0 before the first."""
        self._monitor = monitor
        self._source_name = source_name
        self._notified_at = notified_at
        self._demo = demo
        self._keys = Classifier(settings).critical_keys
        self._steps = 0
        self._summary: tuple[tuple[int, ...], SummaryAnswer] | None = None

    def apply(self, settings: Settings) -> None:
        """Take new settings after a reload."""
        self.settings = settings
        self._keys = Classifier(settings).critical_keys
        self._steps += 1

    def renew(self, published: Published) -> None:
        """A step was committed: what was made of the state before is old."""
        self._steps += 1
        if published.events:
            self.newest_event = published.events[-1].id
        if any(event.event_type != "health_check" for event in published.events):
            self.changes += 1
            self.figures.expire()

    @property
    def view(self) -> View:
        return self._monitor.view

    @property
    def critical_keys(self) -> Mapping[str, str]:
        """The keys of /critical -> the role that each stands for."""
        return self._keys

    @property
    def made_of(self) -> tuple[int, ...]:
        """What the answers about the present are made of: when it changes they are made again."""
        return self.view.version, self._steps, self.figures.version

    def alerts(self) -> list[Alert]:
        """The open alerts."""
        return list(self._monitor.alerts.values())

    def incidents(self) -> IncidentsAnswer:
        """What /incidents answers."""
        sight, notified = self._sight(), self._notified_at()
        rows = [incident_answer(incident, notified, sight) for incident in self._incidents()]
        return IncidentsAnswer(rows, len(rows), rfc3339(self.view.as_of))

    def summary(self) -> SummaryAnswer:
        """What /summary answers; made once a step."""
        made_of = self.made_of
        if self._summary is None or self._summary[0] != made_of:
            answer = summary_answer(
                self.view,
                self.alerts(),
                self._incidents(),
                self._sight(),
                source=self._source_name(),
                version=__version__,
                demo=self._demo,
            )
            self._summary = made_of, answer
        return self._summary[1]

    def _incidents(self) -> list[Incident]:
        return join_alerts(self.alerts(), self.view, self.settings.group_wait)

    def _sight(self) -> SightReturned | None:
        return sight_returned(self.alerts(), self.view, self.settings.blind_after)
