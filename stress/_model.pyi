has_assembly: bool

def run(
    which: str, model: bool, cap: int, count: int, n: int, opened: bool, pops: int, restarts: int = 0
) -> tuple[int, int, list[int], list[int], int]: ...
