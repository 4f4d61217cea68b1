"""The OpenAPI 3.1 document of the API: made of the route table and the types of the answers. Pure."""

import re
from collections.abc import Iterable
from typing import Any, get_origin

import msgspec

from tsmon.server.answers import ErrorAnswer
from tsmon.server.params import Param
from tsmon.server.route_params import NodesQuery
from tsmon.server.routing import Route

_REF = "#/components/schemas/{name}"
_PATH_DOCS = {
    "node": "a present hostname, else an ID, else the latest removed hostname",
    "ip": "an IPv4 or IPv6 address of the tailnet",
    "name": "the name of a file",
}
_IP = {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
_TEXTS = {
    "/metrics": "text/plain",
    "/maintenance.ics": "text/calendar",
    "/health-monitoring/stream": "text/event-stream",
    "/health-monitoring/badge/{node}.svg": "image/svg+xml",
}
_PATTERNS = {
    "month": "^20[0-9]{2}-(0[1-9]|1[0-2])$",
    "moment": "^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])(T[01][0-9]:[0-5][0-9]:00Z)?$",
    "zone": "^(UTC|Europe/(Berlin|London)|America/New_York|Asia/Tokyo)$",
}
_ERRORS = {
    "400": "a query parameter that is unknown or has a bad value",
    "401": "a token is needed (`auth.mode`)",
    "403": "not let in, or a Host header that is not this tsmon's",
    "404": "there is no such node, address or file",
    "503": "the history cannot be read just now",
}


def document(routes: Iterable[Route[Any]], version: str, retention: float) -> dict[str, Any]:
    """The document, before it becomes JSON; `retention` in seconds bounds what may be asked."""
    routes = list(routes)
    typed = [route.answer for route in routes if _is_json(route.answer)]
    schemas, components = msgspec.json.schema_components([*typed, ErrorAnswer], ref_template=_REF)
    # With `fields` an answer holds what was asked for.
    components["NodeFields"] = {**components["NodeAnswer"], "title": "NodeFields", "required": []}
    by_type = {repr(kind): schema for kind, schema in zip([*typed, ErrorAnswer], schemas, strict=True)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tsmon",
            "version": version,
            "summary": "What a tailnet is like: nodes, uptime, alerts, events. Read-only.",
        },
        # Relative: it holds below any path prefix.
        "servers": [{"url": "."}],
        "paths": {route.path: {"get": _operation(route, by_type, retention)} for route in routes},
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "any user, the token as password",
                },
            },
        },
        "security": [{}, {"token": []}, {"password": []}],
    }


def _operation(route: Route[Any], schemas: dict[str, Any], retention: float) -> dict[str, Any]:
    in_path = re.findall(r"\{(\w+)\}", route.path)
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _IP if name == "ip" else {"type": "string"},
            "description": _PATH_DOCS[name],
        }
        for name in in_path
    ]
    parameters += [_parameter(param, retention) for param in route.params]
    return {
        "operationId": re.sub(r"\W+", "_", route.path).strip("_") or "root",
        "summary": route.summary,
        "parameters": parameters,
        "responses": _responses(route, schemas, bool(in_path)),
    }


def _parameter(param: Param, retention: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": param.name,
        "in": "query",
        "description": f"{param.takes.doc}; takes {param.takes.words}",
        "schema": _schema(param, retention),
    }
    if param.takes.kind == "names":
        found |= {"style": "form", "explode": False}
    return found


def _schema(param: Param, retention: float) -> dict[str, Any]:
    """What a parameter takes, as JSON Schema."""
    takes = param.takes
    default = {} if param.default in (None, "", ()) else {"default": param.default}
    if takes.kind == "bool":
        return {"type": "string", "enum": ["true", "false", "1", "0", "yes", "no"]}
    if takes.kind == "int":
        most = min(takes.most, int(retention // 3600)) if param.name == "hours" else takes.most
        return {"type": "integer", "minimum": takes.least, "maximum": most, **default}
    if takes.kind == "choice":
        return {"type": "string", "enum": list(takes.choices), **default}
    if takes.kind == "names":
        return {"type": "array", "items": {"enum": list(takes.choices)}, "minItems": 1}
    if takes.kind == "time":
        return {"type": "string", "format": "date-time"}
    if takes.kind == "duration":
        # Longer ones are taken, too, up to the retention.
        return {"type": "string", "pattern": "^[1-9][0-9]?(m|h|d)$"}
    if takes.kind in _PATTERNS:
        return {"type": "string", "pattern": _PATTERNS[takes.kind]}
    return {"type": "string", "maxLength": 253, "pattern": "^[^\\u0000]*$"}


def _responses(route: Route[Any], schemas: dict[str, Any], has_path: bool) -> dict[str, Any]:
    if route.path == "/":
        return {"302": {"description": "to the dashboard"}}
    answer = {"description": route.summary, "content": _content(route, schemas)}
    responses: dict[str, Any] = {"200": answer, "304": {"description": "the client has it (If-None-Match)"}}
    if route.path in ("/healthz", "/readyz"):
        responses["503"] = answer | {"description": "it is not well"}
    for status, words in _ERRORS.items():
        if status in responses or (status == "404" and not has_path):
            continue
        content = {"application/json": {"schema": schemas[repr(ErrorAnswer)]}}
        responses[status] = {"description": words, "content": content}
    return responses


def _content(route: Route[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    if not _is_json(route.answer):
        kind = _TEXTS.get(route.path, "text/html" if route.answer is str else "*/*")
        return {kind: {"schema": {"type": "string"}}}
    schema = schemas[repr(route.answer)]
    if route.query is NodesQuery:
        schema = {"type": "array", "items": {"$ref": _REF.format(name="NodeFields")}}
    found: dict[str, Any] = {"application/json": {"schema": schema}}
    if route.path.endswith("/report"):
        found |= {kind: {"schema": {"type": "string"}} for kind in ("text/html", "text/csv", "text/plain")}
    if route.path.endswith("/logs"):
        found |= {kind: {"schema": {"type": "string"}} for kind in ("text/csv", "application/x-ndjson")}
    return found


def _is_json(answer: Any) -> bool:
    return get_origin(answer) is not None or (isinstance(answer, type) and issubclass(answer, msgspec.Struct))
