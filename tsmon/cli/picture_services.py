"""The lines that `tsmon status` draws of checked ports. Pure: time is passed in."""

from typing import TYPE_CHECKING, Any

from tsmon.base.text import counted, length_words
from tsmon.cli.terminal import plain, when

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {"ok": "green", "unknown": "dim yellow"}
_MARKS = {"ok": "●", "unknown": "○"}
_PLAIN_MARKS = {"ok": "+", "unknown": "?"}
_WORDS = {
    "ok": "answers",
    "refused": "refuses",
    "no_answer": "does not answer",
    "bad_answer": "answers badly",
    "unknown": "unknown",
}


def services_lines(services: dict[str, Any], now: float, *, everything: bool, utf8: bool) -> list["Text"]:
    """What is down and unknown, with `everything` what is well, too."""
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    found = [row for row in services.get("services") or () if isinstance(row, dict)]
    well = sum(row.get("state") == "ok" for row in found)
    head = Text(f"{counted(len(found), 'service')} checked, {well} well", style="bold")
    if services.get("can_check") is False:
        head.append(f"; nobody can be asked: {plain(services.get('why_not'), 300)}", style="yellow")
    shown = [row for row in found if everything or row.get("state") != "ok"]
    return [
        head,
        *(_line(row, now, _MARKS if utf8 else _PLAIN_MARKS, bad="✖" if utf8 else "x") for row in shown),
    ]


def _line(row: dict[str, Any], now: float, marks: dict[str, str], *, bad: str) -> "Text":
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    state = plain(row.get("state"), 20)
    line = Text(f"{marks.get(state, bad)} ", style=_STYLES.get(state, "red"))
    line.append(f"{plain(row.get('hostname'), 80)} {plain(row.get('check'), 80)}")
    since = when(row.get("since"))
    words = _WORDS.get(state, state) + (f" {length_words(now - since)}" if since is not None else "")
    latency, uptime = row.get("latency_ms"), row.get("uptime_24h")
    words += f", {latency:.3g} ms" if isinstance(latency, int | float) else ""
    words += f", {uptime:.2f} % of 24 h" if isinstance(uptime, int | float) else ""
    if row.get("detail") and state != "ok":
        words += f" ({plain(row['detail'], 120)})"
    line.append(f"  {words}", style="dim")
    return line
