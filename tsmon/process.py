"""What the process asks of the system before anything runs."""

import ctypes
import resource

_FILES = 8192
_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_LARGE = 512 * 1024


def prepare() -> None:
    """Descriptors enough for the API's connections, and memory that goes back to the system."""
    raise_limit()
    _give_memory_back()


def raise_limit() -> None:
    """Allow as many open files as may be needed, as far as this process may (1,024 is a common default)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _give_memory_back() -> None:
    """glibc keeps what was freed, in pieces that the next large block does not fit: 400 clients that did not
    read a large answer cost 170 MB more each time they came. With a threshold that does not move by itself
    each large block is a mapping of its own; smaller ones (what a socket is read into) would pay for that.
    Other C libraries have no such function."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
