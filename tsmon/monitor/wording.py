"""Why a node is offline, in words for people: events, messages, commands and the page say the same."""

from collections.abc import Mapping

from tsmon.monitor.state import Node

REASON_WORDS: Mapping[str, str] = {
    "stopped": "Tailscale is stopped on it",
    "key_expired": "its node key expired",
    "control": "the control plane calls it offline",
    "unreachable": "the control plane calls it online, but three pings in a row got no answer",
}
"""Of every reason (rule 2.4)."""
BRIEF_WORDS: Mapping[str, str] = {
    "stopped": "Tailscale stopped",
    "key_expired": "key expired",
    "unreachable": "answers no ping",
}
"""The same where a column is narrow; that control says so goes without saying."""


def how_known(node: Node) -> str:
    """Why `node` is offline, and what else was tried to be sure."""
    words = REASON_WORDS[node.reason or "control"]
    if node.reason == "unreachable":
        checked = "other nodes answer theirs" if node.reach.cross_checked else "no other node to compare with"
        return f"three pings in a row unanswered ({checked}); the control plane still calls it online"
    if node.reason == "control" and node.reach.asked:
        return f"{words}, and it answers no ping"
    return words
