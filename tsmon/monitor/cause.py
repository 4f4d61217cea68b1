"""What the fallen have in common: a role, tag, owner or relay region (rule 9.5). Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator

from tsmon.monitor.state import Node

LEAST_FALLEN = 0.8
"""Share of the fallen that a cause must cover."""
MOST_STANDING = 0.5
"""Share of the standing that it must stay under: what everybody has explains nothing."""
_FEWEST = 2
"""Below this number of fallen nodes a common trait is chance."""


def common_cause(fallen: Iterable[Node], standing: Iterable[Node]) -> str:
    """What most of the fallen share and few of the standing have, as `tag:rack-a` or `owner alice@…`; "" when
    there is nothing of that kind. The one that tells them apart best wins,
    a role last: it follows from the others."""
    down = list(fallen)
    if len(down) < _FEWEST:
        return ""
    traits = Counter(trait for node in down for trait in _traits(node))
    candidates = {trait for trait, count in traits.items() if count >= LEAST_FALLEN * len(down)}
    if not candidates:
        return ""
    up = 0
    others: Counter[str] = Counter()
    for node in standing:
        up += 1
        others.update(candidates.intersection(_traits(node)))
    return min(
        (trait for trait in candidates if others[trait] < MOST_STANDING * up),
        key=lambda trait: (others[trait] / up - traits[trait] / len(down), trait.startswith("role "), trait),
        default="",
    )


def _traits(node: Node) -> Iterator[str]:
    yield f"role {node.role.name}"
    yield from node.facts.tags
    if node.facts.user and not node.facts.tagged:
        yield f"owner {node.facts.user}"
    if node.facts.relay:
        yield f"relay region {node.facts.relay}"
