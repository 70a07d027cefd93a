"""Switches that the environment sets: 0 or 1."""
import os


def flag(name: str) -> bool:
    """Whether the variable is 1. ValueError for anything but 0, 1 and nothing."""
    text = os.environ.get(name, "").strip()
    if text not in ("", "0", "1"):
        raise ValueError(f"{name} must be 0 or 1, not {text!r}")
    return text == "1"
