"""Time and text: what every package may import. Imports nothing of tsmon."""
