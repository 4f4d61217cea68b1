"""What somebody without the token is answered: JSON for programs, a page for a browser. Pure."""

from aiohttp import hdrs, web

from tsmon.server.replies import error_response

_ASK: dict[str, str] = {hdrs.WWW_AUTHENTICATE: 'Basic realm="tsmon", charset="UTF-8"'}
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>tsmon: {title}</title></head>
<body>
<h1>{title}</h1>
<p>tsmon asks for a name and a password: <strong>any name, the token as the password</strong>.
Reload this page to be asked again.</p>
<p>The token is <code>auth.token</code> of tsmon's configuration.</p>
</body>
</html>
"""


def ask_for_token(accept: str, *, wrong: bool) -> web.Response:
    """401. `accept`: the request's Accept header; `wrong`: a token was given, but not this one."""
    message = (
        "the token is wrong: it is auth.token of the configuration, as Bearer, or as the password of Basic"
        if wrong
        else "a token is needed: as Bearer, or as the password of Basic"
    )
    if "text/html" not in accept:
        return error_response(401, "unauthorized", message, _ASK)
    title = "This token is wrong" if wrong else "A token is needed"
    headers = {hdrs.CACHE_CONTROL: "no-store", **_ASK}
    return web.Response(status=401, text=_PAGE.format(title=title), content_type="text/html", headers=headers)
