"""The fast paths do not grow: counted in instructions, which no other work on the machine disturbs."""
from __future__ import annotations

import platform
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

import deferpool
from stress import machine
from stress.bench import instructions
from stress.bench.instructions import Uncounted

TAKE, GIVE, PORTABLE = 29, 54, 182  # gcc 12 at -O2 and -O3; docs/performance.md says what they are made of

CODE = {0x2000: "mov    %rax,%fs:0x8(%rdi)", 0x2004: "cmp    $0x1,%eax", 0x2008: "jae    2020 <f+0x20>",
        0x200c: "jmp    2018 <f+0x18>", 0x2010: "call   1000 <other>", 0x2018: "nop", 0x201c: "ret",
        0x2020: "jmp    1000 <other>"}


def counted(count: Callable[[], float]) -> float:
    try:
        return count()
    except Uncounted as why:
        pytest.skip(str(why))


@pytest.mark.skipif(not machine.has_sections(), reason="no restartable sections here")
def test_sections_do_not_grow() -> None:
    take, give = instructions.take(), instructions.give()
    assert len(take) <= TAKE, "\n".join(take)
    assert len(give) <= GIVE, "\n".join(give)
    for path in (take, give):
        assert sum(bool(instructions.ENTERS.match(instruction)) for instruction in path) == 1
        assert path[-1].startswith("ret")


@pytest.mark.skipif(not machine.has_sections(), reason="no restartable sections here")
def test_slots_are_reached_without_an_index() -> None:
    """Processors that pass a value from a store to a load before either has its address want a plain address."""
    for path in (instructions.take(), instructions.give()):
        assert [instruction for instruction in path if re.match(r"mov\w*\s.*,8\)", instruction)] == []
        assert sum(bool(re.match(r"lea\s.*,8\)", instruction)) for instruction in path) == 1


def test_portable_mode_does_not_grow() -> None:
    assert 20 < counted(instructions.portable) <= PORTABLE


def test_the_way_without_a_call_is_found() -> None:
    (way,) = instructions._without_calls(CODE, 0x2000, frozenset())
    assert [instruction.split()[0] for instruction in way] == ["mov", "cmp", "jae", "jmp", "nop", "ret"]


def test_a_loop_ends() -> None:
    assert list(instructions._without_calls({1: "jne    1 <f>", 2: "jmp    1 <f>"}, 1, frozenset())) == []


def test_a_missing_function_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> list[str]:
        return instructions._fast_path("no_such_function")

    with pytest.raises(Uncounted, match="has no function no_such_function"):
        missing()
    monkeypatch.setattr(instructions, "take", missing)
    assert instructions.main([]) == 1
    assert "not counted: " in capsys.readouterr().out


def test_the_command_says_all_three(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "portable", lambda: 181.25)
    assert instructions.main(["--show"]) == 0
    said = capsys.readouterr().out
    assert "take: " in said
    assert "    ret\n" in said
    assert "take and give: 181.2 instructions, in portable mode" in said


@pytest.mark.skipif((platform.libc_ver()[0], platform.machine()) != ("glibc", "x86_64"), reason="other names")
def test_variables_of_threads_need_no_memory() -> None:
    """By another model a thread's first look at them is a call that allocates, and aborts when it cannot."""
    extensions = sorted(Path(deferpool.__file__).parent.glob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"))
    assert len(extensions) > 10
    assert [path.name for path in extensions if b"__tls_get_addr" in path.read_bytes()] == []
