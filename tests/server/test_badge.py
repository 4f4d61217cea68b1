"""Badges: well-formed whatever a node is called, and true."""

from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tests.support.site import site
from tsmon.server.badge import badge

SVG = "{http://www.w3.org/2000/svg}"


def texts(data: bytes) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(data).iter(f"{SVG}text")]


def test_words() -> None:
    assert texts(badge("git", "online", 99.98)) == ["git", "online · 99.98 %"]
    assert texts(badge("git", "offline", 100.0)) == ["git", "offline · 100 %"]
    assert texts(badge("git", "unknown", None)) == ["git", "unknown"]


@given(
    st.text(max_size=300), st.sampled_from(["online", "offline", "unknown"]), st.none() | st.floats(0, 100)
)
def test_no_name_breaks_it(name: str, state: str, uptime: float | None) -> None:
    image = ElementTree.fromstring(badge(name, state, uptime))
    kinds = {element.tag.removeprefix(SVG) for element in image.iter()}
    assert kinds == {"svg", "title", "rect", "g", "text"}
    assert int(image.attrib["width"]) < 700


def test_a_hostile_name_stays_text() -> None:
    name = '"><script>alert(1)</script>&amp;'
    assert texts(badge(name, "online", None))[0] == name
    assert b"<script" not in badge(name, "online", None)


async def test_the_route(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        url = here.daemon.url + "/health-monitoring/badge/git.svg"
        async with here.client.get(url) as response:
            assert response.content_type == "image/svg+xml"
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-site"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert texts(await response.read())[1].startswith("online")
        here.tailnet.off("git")
        await here.poll()
        async with here.client.get(url) as response:
            assert texts(await response.read())[1].startswith("offline")
        await here.get("/health-monitoring/badge/nobody.svg", 404)
        await here.get("/health-monitoring/badge/git.png", 404)
