from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from deferpool.records import RecordPool

P = ParamSpec("P")
T = TypeVar("T")

def defer(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]: ...
def deferring_function(function: Callable[..., Any]) -> Any: ...

CALL_SIZES: tuple[int, ...]
ACTIVATION_SIZE: int

def size_of_call(arguments: int, /) -> int: ...
def take_records_from(
    of_calls: RecordPool | None = None, of_activations: RecordPool | None = None
) -> None: ...
