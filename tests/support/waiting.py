"""Waiting for a descriptor, whatever its number: `select.select` knows those below 1024 alone."""

import selectors


def readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read, within so many seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(seconds))
