"""Moves the memory that hosts share into large pages. Runs in the template once it has imported everything."""

import ctypes
import sys

LARGE_PAGE, COLLAPSE = 2 << 20, 25


def use_large_pages():
    """Collapses writable memory into large pages, where Linux can: a fork copies an entry for each page, and the end of
    a child takes each of them apart. A child that writes to a large page still copies small ones only."""
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with open("/proc/self/maps") as file:
        mappings = [line.split() for line in file]
    for range_, permissions, _, _, inode, *name in mappings:
        if inode != "0" or not permissions.startswith("rw") or name not in ([], ["[heap]"]):
            continue
        start, end = (int(address, 16) // LARGE_PAGE for address in range_.split("-"))
        for page in range(start + 1, end):
            # The call changes nothing where it fails, for lack of memory or of support.
            advise(page * LARGE_PAGE, LARGE_PAGE, COLLAPSE)
