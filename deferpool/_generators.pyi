from collections.abc import Callable
from typing import Any

from deferpool._bodies import Body

def make(function: Callable[..., Any], driver: Callable[[Body], Any]) -> Any: ...
