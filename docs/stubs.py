"""Signatures of what is compiled, from the stubs: compiled functions do not always know theirs."""
from __future__ import annotations

import ast
from functools import cache
from inspect import isfunction
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent / "deferpool"
Found = tuple[str, "str | None"]            # the arguments, and what comes back
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def written(function: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool) -> Found:
    arguments = function.args
    if bound:                               # self is not said
        del (arguments.posonlyargs or arguments.args)[:1]
    comes_back = None if function.name == "__init__" or function.returns is None else ast.unparse(function.returns)
    if isinstance(function, ast.AsyncFunctionDef):
        comes_back = f"Awaitable[{comes_back}]"
    return f"({ast.unparse(arguments)})", comes_back


def of_class(node: ast.ClassDef) -> dict[str, Found]:
    """Its own arguments under its name, and those of its methods. Of overloads the first one counts."""
    found: dict[str, Found] = {}
    for inner in node.body:
        if isinstance(inner, Function):
            marks = {mark.id for mark in inner.decorator_list if isinstance(mark, ast.Name)}
            name = node.name if inner.name == "__init__" else f"{node.name}.{inner.name}"
            if "property" not in marks and name not in found:
                found[name] = written(inner, bound="staticmethod" not in marks)
    return found


@cache
def signatures() -> dict[str, Found]:
    """Of all stubs, by name and without the module."""
    found: dict[str, Found] = {}
    for stub in sorted(PACKAGE.glob("*.pyi")):
        for node in ast.parse(stub.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found |= of_class(node)
            elif isinstance(node, Function):
                found[node.name] = written(node, bound=False)
    return found


def signature(_app: Any, what: str, name: str, thing: Any, _options: Any, *_given: str | None) -> Found | None:
    """For autodoc: the stub's, where the thing is compiled and a stub has it."""
    if what in ("class", "exception", "function", "method") and not isfunction(thing):
        return signatures().get(name.removeprefix("deferpool."))
    return None
