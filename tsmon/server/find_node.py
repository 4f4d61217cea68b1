"""Which node a name stands for."""

from tsmon.base.text import clean_text
from tsmon.history.store import Store
from tsmon.monitor.state import Node, View
from tsmon.server.replies import ApiError


async def find_node(name: str, view: View, store: Store) -> Node:
    """A present hostname, else an ID, else the latest removed hostname. Raises ApiError and StoreError."""
    present = next((node for node in view.nodes.values() if node.hostname == name), None)
    found = present or view.nodes.get(name) or await store.find_removed(name)
    if found is None:
        raise ApiError(404, "not_found", f"there is no node {clean_text(name, 100)!r}")
    return found
