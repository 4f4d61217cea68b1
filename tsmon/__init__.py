"""tsmon watches a Tailscale tailnet and says what it knows, and what it cannot see."""

from importlib.metadata import version

__version__ = version("tsmon")
