"""Whose network map a document is: another tailnet's, or this one's under a new name (rule 1.7). Pure."""

from collections.abc import Mapping

from tsmon.source.status import Snapshot, Tailnet


class Identity:
    """The public keys of the nodes in the last trusted document: control's IDs may be small numbers, equal in
    two tailnets; keys are not."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys` by stable ID, Self's too; "" where none is known."""
        self._keys = dict(keys)

    def note(self, trusted: Snapshot) -> None:
        """Remember the keys of a trusted document."""
        self._keys = {id_: facts.key for id_, facts in trusted.nodes.items()}

    def is_same(self, snapshot: Snapshot) -> bool:
        """Self and more than half of the peers have the ID and the key that they had."""
        own = snapshot.self_id
        if not own or not self._has_kept_key(own, snapshot):
            return False
        peers = self._keys.keys() - {own}
        same = sum(self._has_kept_key(id_, snapshot) for id_ in peers)
        return 2 * same > len(peers) or not peers

    def _has_kept_key(self, id_: str, snapshot: Snapshot) -> bool:
        facts, key = snapshot.nodes.get(id_), self._keys.get(id_)
        return bool(key) and facts is not None and facts.key == key


def renaming(before: Tailnet | None, after: Tailnet | None) -> str:
    """What is to be said of a tailnet that bears another name than before, "" when it does not."""
    if before is None or after is None or before == after:
        return ""
    parts = [
        f"{what} {old} is now {new}"
        for what, old, new in (
            ("the tailnet", before.name, after.name),
            ("its MagicDNS suffix", before.suffix, after.suffix),
        )
        if old != new
    ]
    return "; ".join(parts)
