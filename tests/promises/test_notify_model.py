"""Random lives of a tailnet, of tsmon and of a channel, held against what no message may ever be."""

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.support.virtual import run_virtual
from tests.support.witness import NAMES, NODE_KINDS, Witness, act
from tests.support.world import World
from tsmon.monitor.alerts import Alert, Silence
from tsmon.monitor.incidents import topic_of
from tsmon.notify.line import MessageLine
from tsmon.notify.outcome import Outcome

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *[("off", name) for name in NAMES],
                *[("on", name) for name in NAMES],
                *[("hang", name) for name in NAMES],
                ("detach", "git"),
                ("wait", ""),
                ("refuse", ""),
                ("answer", ""),
                ("kill", ""),
                ("kill", ""),
                ("channel", "fails"),
                ("channel", "refuses"),
                ("channel", "works"),
                ("channel", "works"),
                *[("silence", name) for name in NAMES],
            ]
        ),
        st.sampled_from([5, 16, 40, 70, 130, 260]),
    ),
    min_size=5,
    max_size=35,
)
OUTCOMES = {"fails": Outcome(False, "answered 503"), "refuses": Outcome(False, "answered 404", refused=True)}


class Listener(Witness):
    """Sees every step, and every notice that it makes."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.fired: Counter[int] = Counter()
        self.silenced: set[int] = set()
        self._keys: set[str] = set()
        self._heard = 0
        self._before: Any = None

    def look(self, published: Any) -> None:
        super().look(published)
        self._look_at_words(published.view)
        self.fired.update(int(e.details["alert_id"]) for e in published.events if e.event_type == "alert")
        self.silenced.update(a.id for a in published.alerts if a.silenced_until is not None)
        line = self.world.notifier.lines["team"]
        assert isinstance(line, MessageLine)
        for row in line.desk.waiting:
            if row.notice.key in self._keys:
                continue
            self._keys.add(row.notice.key)
            of_nodes = [e.alert for e in row.notice.entries if self.alerts[e.alert].kind in NODE_KINDS]
            if row.notice.kind in ("reminder", "quiet_over") and of_nodes and published.view.blind:
                self.faults.append(f"{row.notice.kind} made while blind")

    def _look_at_words(self, view: Any) -> None:
        """Whom a message calls back is online, or was a moment ago: while it was on its way."""
        messages = self.world.told_to.get("team", [])
        for message in messages[self._heard :]:
            for _, alert in message.entries:
                if topic_of(alert)[0] != "state" or alert.state != "resolved":
                    continue
                nodes = [seen.nodes.get(alert.node_id) for seen in (view, self._before) if seen is not None]
                if all(node is not None and node.state != "online" for node in nodes):
                    self.faults.append(f"{message.title}: {alert.hostname} is not back")
        self._heard = len(messages)
        self._before = view


async def play(world: World, kind: str, name: str) -> None:
    if kind == "channel":
        world.outcomes.pop("team", None)
        if name in OUTCOMES:
            world.outcomes["team"] = OUTCOMES[name]
        world.notifier.enable("team")
    elif kind == "silence":
        now = world.clock.wall()
        await world.parts.silencing.silence(
            Silence(id=0, author="a", reason="b", created=now, ends=now + 300, hosts=(name,))
        )
    else:
        await act(world, kind, name)


def check_messages(world: World, listener: Listener) -> None:
    told_down: Counter[int] = Counter()
    told_ended: Counter[int] = Counter()
    said: set[int] = set()
    messages = world.told_to.get("team", [])
    keys = [message.notice.key for message in messages]
    assert len(keys) == len(set(keys)), "a message came twice"
    for message in messages:
        for entry, alert in message.entries:
            said.add(alert.id)
            if entry.phase == "fell":
                told_down[alert.id] += 1
            if entry.phase == "back":
                before = messages[: messages.index(message)]
                heard = {
                    topic_of(a) for earlier in before for _, a in earlier.entries if a.id in earlier.down
                }
                assert topic_of(alert) in heard, f"{message.title}: a recovery of what nobody was told of"
            told_ended[alert.id] += alert.state == "resolved"
    for alert_id, count in told_down.items():
        assert count <= listener.fired[alert_id], "told more often than it fired"
    assert max(told_ended.values(), default=0) <= 1, "an end was told twice"
    final: dict[int, Alert] = listener.alerts
    for alert_id in listener.fired:
        alert = final[alert_id]
        if alert.untold or alert_id in listener.silenced or alert.cause == "settled":
            continue
        later = {id_ for id_, other in final.items() if id_ > alert_id and topic_of(other) == topic_of(alert)}
        if not later & listener.silenced:  # what took its place was held back
            assert said & {alert_id, *later}, f"{alert.kind} of {alert.hostname} was never told"
    last: dict[tuple[str, str], bool] = {}
    for message in messages:
        last |= {topic_of(alert): alert.id in message.down for _, alert in message.entries}
    unended = {topic_of(final[id_]) for id_ in listener.fired if final[id_].untold}
    for topic, down in last.items():
        assert not down or topic in unended, f"the last word on {topic} is that it lasts"


async def live(actions: list[tuple[tuple[str, str], int]], directory: Path) -> None:
    world = World(directory, *NAMES[:3], offline_after="1m", blind_after="2m", remind_every="30m")
    world.tailnet.add("server-1", tags=["tag:server"])
    listener = Listener(world)
    listener.attach()
    await world.start()
    try:
        await world.run(31)
        for (kind, name), seconds in actions:
            await play(world, kind, name)
            await world.run(seconds)
        world.tailnet.fault = ""
        world.outcomes.clear()
        world.notifier.enable("team")
        world.tailnet.on(*NAMES)
        await world.run(2000)
        assert not listener.faults
        assert not world.alerts()
        check_messages(world, listener)
        line = world.notifier.lines["team"]
        assert isinstance(line, MessageLine)
        assert not line.desk.waiting
        assert not line.alerts, "nothing is left over"
    finally:
        await world.kill()


@settings(
    max_examples=int(os.environ.get("TSMON_TEST_EXAMPLES", "10")),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(ACTIONS)
def test_no_message_is_wrong_doubled_or_missing(actions: list[tuple[tuple[str, str], int]]) -> None:
    note(str(actions))
    with tempfile.TemporaryDirectory() as directory:
        run_virtual(live(actions, Path(directory)))
