"""tsmon watches a Tailscale tailnet and says what it knows, and what it cannot see."""

__version__ = "0.2.0"
