"""What the kernel may refuse: the barrier, before the import or long after it."""
import pytest
from helpers import Mode, output_of

REFUSE = """if True:
    import ctypes, struct
    def refuse_membarrier():
        libc = ctypes.CDLL(None, use_errno=True)
        code = [(0x20, 0, 0, 0), (0x15, 0, 1, 324), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
        header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
        assert libc.prctl(38, 1, 0, 0, 0) == 0      # no new privileges
        assert libc.prctl(22, 2, header) == 0       # a seccomp filter: EPERM for membarrier
"""

LATER = REFUSE + """
    import errno, os, threading, deferpool
    pool = deferpool.RecordPool([16], cap=4, limit=10)
    for record in [pool.new(16) for _ in range(50)]:
        pool.free(record)
    before = pool.stats()
    refuse_membarrier()
    for attempt in (lambda: deferpool.procresize(1), lambda: deferpool.procresize(50), pool.clear):
        try:
            attempt()
        except OSError as error:
            print(errno.errorcode[error.errno])
    print(deferpool.procs() == len(os.sched_getaffinity(0)), deferpool.stats()["mode"])
    print(pool.stats()["per_p"] == before["per_p"], pool.stats()["central"])
    def use():
        for _ in range(3):
            for record in [pool.new(16) for _ in range(50)]:
                pool.free(record)
    threads = [threading.Thread(target=use) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    stats = pool.stats()
    print(sum(map(sum, stats["per_p"])) > 0, stats["live"], stats["created"] == stats["cached"] + stats["destroyed"])
"""

FROM_THE_START = REFUSE + """
    refuse_membarrier()
    import deferpool
    print(deferpool.stats()["mode"])
    pool = deferpool.RecordPool([16], cap=4, limit=10)
    for record in [pool.new(16) for _ in range(50)]:
        pool.free(record)
    deferpool.procresize(3)
    pool.clear()
    print(pool.stats()["cached"])
"""


def test_refused_later_changes_nothing(mode: Mode) -> None:
    """What was stopped goes on, and the caller is told; only in sections mode is there a barrier at all."""
    if mode.name == "portable":
        assert "EPERM" not in output_of(LATER, DEFERPOOL_PORTABLE="1")
        return
    lines = output_of(LATER).splitlines()
    # clear() empties the central pool even so
    assert lines == ["EPERM", "EPERM", "EPERM", "True sections", "True 0", "True 0 True"]


def test_refused_from_the_start_is_portable_mode(mode: Mode) -> None:
    if mode.name == "portable":
        pytest.skip("asked for anyway")
    assert output_of(FROM_THE_START).splitlines() == ["portable", "0"]
