"""What all commands share: a parser that complains in one line, and kinds of values that say what was wrong."""
from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Status 2 and one line on stderr, without the usage that argparse puts before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (--help lists the options)\n")


def number(low: int, high: int) -> Callable[[str], int]:
    def kind(text: str) -> int:
        try:
            value = int(text.replace("_", "").replace(",", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not from {low} to {high}")
        return value
    return kind


def even(text: str) -> int:
    value = number(2, 32766)(text)
    if value % 2:
        raise argparse.ArgumentTypeError(f"{value} is odd: half of it must move at once")
    return value


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} seconds is not more than 0 and at most 1,000,000")
    return value
