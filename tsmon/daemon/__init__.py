"""The running process: `parts` builds it; `listening`, `jobs` and `reload` keep it going; `daemon` starts and
stops it."""
