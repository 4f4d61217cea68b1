"""What the control server knows: its API, what waits there, credentials that end, routes without a second
router (rules 12.7 to 12.10). Nothing begins or ends while its answers fail, but what says so."""

from tsmon.base.clock import rfc3339
from tsmon.monitor.alerts import Alert, AlertBook
from tsmon.monitor.control.drift import Drift
from tsmon.monitor.control.inventory import Inventory
from tsmon.monitor.rules.step import EPSILON, Step
from tsmon.source.control.devices import Credential, Device

FAILING_AFTER = 900.0
JOINED_FOR = 86400.0
"""Seconds after which a device that joined is none that just did."""
CONTROL_KINDS = (
    "control_api_failing",
    "device_pending",
    "device_joined",
    "credential_expiring",
    "redundancy_lost",
)


class Control:
    """Over an `AlertBook`."""

    def __init__(self, book: AlertBook, redundant: frozenset[str] = frozenset()) -> None:
        """`redundant`: prefixes that had two routers when they were last looked at."""
        self.book = book
        self.redundant = redundant

    def look(self, step: Step) -> None:
        control = step.control
        if control is None:
            for alert in self.book.of_kind(*CONTROL_KINDS):
                self.book.end(alert, step.now, "not_configured", untold=True)
            return
        self._failing(control, step)
        if control.is_fresh:
            self._pending(control, step)
            self._joined(control, step)
            self._credentials(control, step)
            if control.knows_routes:
                self._redundancy(control, step)

    # -- the API itself --------------------------------------------------------------------------------

    def _failing(self, control: Inventory, step: Step) -> None:
        alert = self.book.find("control_api_failing")
        if not control.asked:
            return
        if not control.error:
            if alert is not None:
                self.book.end(alert, step.now, "recovered")
            return
        if alert is None:
            alert = self.book.raise_("control_api_failing", "warning", step.now, since=step.now.wall)
        elif alert.state == "pending":
            alert = self.book.update(alert, waited=alert.waited + step.elapsed)
        if alert.state == "pending" and alert.waited >= FAILING_AFTER - EPSILON:
            known = rfc3339(control.as_of)
            words = f"what is known of it is of {known}" if known else "it was never answered"
            self.book.fire(alert, step.now, f"the control server's API fails, {words}: {control.error}")

    # -- machines --------------------------------------------------------------------------------------

    def _pending(self, control: Inventory, step: Step) -> None:
        for alert in self.book.of_kind("device_pending"):
            device = control.devices.get(alert.node_id or "")
            if device is None:
                self.book.end(alert, step.now, "removed")
            elif device.approved is not False:
                self.book.end(alert, step.now, "approved")
        for drift in step.drifts:
            if drift.device.approved is False and drift.kind != "left" and _waits_newly(drift):
                words = f"{_described(drift.device, step)} waits for approval"
                self._raise("device_pending", drift.device, words, step)

    def _joined(self, control: Inventory, step: Step) -> None:
        for alert in self.book.of_kind("device_joined"):
            if alert.node_id not in control.devices:
                self.book.end(alert, step.now, "removed", untold=True)
            elif step.now.wall - alert.pending_at >= JOINED_FOR or not step.limits.device_joined:
                self.book.end(alert, step.now, "known", untold=True)
        for drift in step.drifts if step.limits.device_joined else ():
            if drift.kind == "joined" and not drift.device.ephemeral:
                words = f"{_described(drift.device, step)} joined the tailnet"
                words += "" if drift.device.id in step.nodes else "; it is not seen from here"
                self._raise("device_joined", drift.device, words, step)

    def _raise(self, kind: str, device: Device, words: str, step: Step) -> None:
        if self.book.find(kind, device.id) is not None:
            return
        node = step.nodes.get(device.id)
        if node is not None:
            alert = self.book.raise_(kind, "warning", step.now, node=node, since=step.now.wall)
        else:
            alert = self.book.raise_(
                kind,
                "warning",
                step.now,
                node_id=device.id,
                hostname=device.hostname,
                since=step.now.wall,
            )
        self.book.fire(alert, step.now, words)

    # -- credentials -----------------------------------------------------------------------------------

    def _credentials(self, control: Inventory, step: Step) -> None:
        if control.credentials is None:
            return
        known = {credential.id: credential for credential in control.credentials}
        for alert in self.book.of_kind("credential_expiring"):
            credential = known.get(alert.subject)
            if credential is None or credential.expires != alert.key_expiry:
                self.book.end(alert, step.now, "renewed")
            elif credential.expires is not None and credential.expires <= step.now.wall:
                self.book.end(alert, step.now, "expired", untold=True)
        for credential in control.credentials:
            due = _due(credential, step)
            alert_ = self.book.find("credential_expiring", credential.id)
            if due is not None and (alert_ is None or (alert_.step is not None and due < alert_.step)):
                self._fire_credential(alert_, credential, due, step)

    def _fire_credential(self, alert: Alert | None, credential: Credential, due: float, step: Step) -> None:
        if alert is None:
            alert = self.book.raise_(
                "credential_expiring",
                "warning",
                step.now,
                subject=credential.id,
                since=step.now.wall,
                key_expiry=credential.expires,
            )
        whose = "tsmon's own " if credential.own else "the "
        named = f" ({credential.description})" if credential.description else ""
        words = f"{whose}{credential.kind} {credential.id}{named} expires at {rfc3339(credential.expires)}"
        self.book.fire(alert, step.now, words, step=due)

    # -- routers ---------------------------------------------------------------------------------------

    def _redundancy(self, control: Inventory, step: Step) -> None:
        """A prefix with two routers has one left. Who is down is said by the local view, of machines that are
        not seen by two answers of the control server."""
        for alert in self.book.of_kind("redundancy_lost"):
            if alert.subject not in control.routers:
                self.book.end(alert, step.now, "no_second_router", untold=True)
        redundant = set[str]()
        for prefix, ids in control.routers.items():
            alive = [_routes(control.devices[id_], prefix, control, step) for id_ in ids]
            found = self.book.find("redundancy_lost", prefix)
            if sum(state is True for state in alive) > 1:
                redundant.add(prefix)
                if found is not None:
                    self.book.end(found, step.now, "recovered")
            elif None in alive:
                redundant |= self.redundant & {prefix}
            elif found is not None or prefix in self.redundant:
                redundant.add(prefix)
                states = dict(zip(ids, alive, strict=True))
                self._lost(found, prefix, states, control, step)
        self.redundant = frozenset(redundant)

    def _lost(
        self,
        alert: Alert | None,
        prefix: str,
        states: dict[str, bool | None],
        control: Inventory,
        step: Step,
    ) -> None:
        lost = next(control.devices[id_] for id_, state in states.items() if not state)
        if alert is None:
            alert = self.book.raise_(
                "redundancy_lost",
                "warning",
                step.now,
                subject=prefix,
                node_id=lost.id,
                hostname=_name(lost, step),
                since=step.now.wall,
            )
        elif alert.state == "pending":
            alert = self.book.update(alert, waited=alert.waited + step.elapsed)
        if alert.state == "pending" and alert.waited >= step.limits.offline_after - EPSILON:
            left = [_name(control.devices[id_], step) for id_, state in states.items() if state]
            which = f"{left[0]} alone routes it" if left else "nobody routes it"
            words = f"{prefix} has lost a router, {_name(lost, step)}: {which}"
            self.book.fire(alert, step.now, words)


def _waits_newly(drift: Drift) -> bool:
    return drift.before is None or drift.before.approved is not False


def _name(device: Device, step: Step) -> str:
    node = step.nodes.get(device.id)
    return node.hostname if node is not None else device.hostname


def _described(device: Device, step: Step) -> str:
    traits = ", ".join(filter(None, (device.user, device.os)))
    return _name(device, step) + (f" ({traits})" if traits else "")


def _due(credential: Credential, step: Step) -> float | None:
    """The smallest step (seconds before the end) that has been reached. One that was made for a shorter life
    than a step is not worth a word at it."""
    if credential.expires is None:
        return None
    left = credential.expires - step.now.wall
    life = credential.expires - credential.created if credential.created is not None else float("inf")
    return min((due for due in step.limits.credential_steps if 0 < left <= due < life), default=None)


def _routes(device: Device, prefix: str, control: Inventory, step: Step) -> bool | None:
    """The machine can route `prefix` now; None while nobody knows."""
    if device.routes_advertised is None:
        return None
    if prefix not in device.routes_advertised:
        return False
    node = step.nodes.get(device.id)
    if node is not None:
        return {"online": True, "offline": False, "unknown": None}[node.state]
    if device.online is False:
        return False if device.id in control.down else None
    return True
