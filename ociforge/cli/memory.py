"""How this process holds memory."""

from __future__ import annotations

__all__ = ["keep_freed_memory"]

# Parameters of mallopt(3), from <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

_BLOCKS = 8 << 20  # 8 MiB: more than what is compressed at once
_KEPT = 32 << 20  # 32 MiB


def keep_freed_memory() -> None:
    """Let freed blocks of some MiB be used again. To be called before threads begin.

    glibc gives them back to the kernel, which hands out others that it has to clear, page by page: a twentieth of the
    time that layers take. And it keeps a heap for each thread; one for all takes less, and the interpreter lets few
    threads ask at a time anyway. Does nothing with another C library.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter, value in ((_MMAP_THRESHOLD, _BLOCKS), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, 1)):
        mallopt(parameter, value)
