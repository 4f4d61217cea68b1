"""What the last run left of the channels."""

from pathlib import Path

import msgspec

from tests.support.alerts import NOW, alert
from tsmon.history.store import Store
from tsmon.monitor.batch import Batch
from tsmon.notify.desk import Kept
from tsmon.notify.grouping import Group
from tsmon.notify.stored import load_channels


async def test_of_all_that_ended_only_what_a_channel_still_knows_is_loaded(tmp_path: Path) -> None:
    """However long ago it ended: a channel that was parked for weeks is still to hear of it."""
    kept = Kept(groups=[Group("outage", NOW, back=[3])], notified={1: NOW}, hushed=[4])
    ended = [alert(n, state="resolved", resolved_at=NOW, cause="recovered") for n in range(1, 6001)]
    store = await Store.open(tmp_path)
    meta = {"notify.team": msgspec.json.encode(kept).decode(), "notify.am": '{"labels": {"7": {"a": "b"}}}'}
    await store.commit(Batch(alerts=ended, meta=dict(meta)))
    found = await store.read(load_channels)
    assert found.ended == {n: ended[n - 1] for n in (1, 3, 4, 7)}
    assert found.kept.keys() == {"team", "am"}
    await store.close()
