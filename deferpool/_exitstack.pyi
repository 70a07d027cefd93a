from contextlib import AsyncExitStack as AsyncExitStack  # to a type checker they are the same
from contextlib import ExitStack as ExitStack
