"""A web application whose handlers lease a parser: Markdown comes in, HTML goes out.

    pip install --group examples
    python examples/web.py

A markdown.Markdown is what a Pool is for: it takes a while to make, serves one request at a time, and has a reset()
that makes it as new. `max_live` is the number of parsers there can be; a request that finds all of them out waits its
turn, and the event loop goes on meanwhile.
"""
from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from _compare import arguments, compare, heading

from deferpool import Pool

try:
    import httpx
    import markdown
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse
    from starlette.routing import Route
except ImportError as missing:
    sys.exit(f"this example needs {missing.name}: pip install --group examples, in a checkout of deferpool")

PARSERS = 4
CLIENTS = 4
COMMENT = "A comment with *stress*, `code` and [a link](https://example.org).\n\n| a | b |\n|---|---|\n| 1 | {} |\n"


def make() -> markdown.Markdown:
    return markdown.Markdown(extensions=["extra", "toc"])


pool = Pool(make, reset=markdown.Markdown.reset, max_live=PARSERS, name="markdown")


async def without(request: Request) -> HTMLResponse:
    text = (await request.body()).decode()
    return HTMLResponse(await asyncio.to_thread(lambda: make().convert(text)))


async def pooled(request: Request) -> HTMLResponse:
    text = (await request.body()).decode()
    async with pool.lease() as parser:
        return HTMLResponse(await asyncio.to_thread(parser.convert, text))


app = Starlette(routes=[Route("/without", without, methods=["POST"]), Route("/pooled", pooled, methods=["POST"])])


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """The address of a real server on the loopback interface, in a thread of its own."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise SystemExit("the server did not start")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def main() -> None:
    options = arguments("a parser from a Pool in each request", count=400)
    each = max(options.count // CLIENTS, 1)
    comments = [COMMENT.format(number) for number in range(each)]
    expected = [make().convert(comment) for comment in comments]

    def parse_alone() -> None:
        for comment in comments * CLIENTS:
            make().convert(comment)

    def parse_pooled() -> None:
        for comment in comments * CLIENTS:
            with pool.lease() as parser:
                parser.convert(comment)

    heading("a comment")
    compare("parsed", parse_alone, parse_pooled, rounds=options.rounds, operations=each * CLIENTS)

    with serving(app) as address, ThreadPoolExecutor(CLIENTS) as threads, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=address, trust_env=False)) for _ in range(CLIENTS)]

        def ask(path: str) -> Callable[[httpx.Client], None]:
            def work(client: httpx.Client) -> None:
                for comment, html in zip(comments, expected, strict=True):
                    if client.post(path, content=comment).raise_for_status().text != html:
                        raise SystemExit("the page is not what the comment says")
            return work

        compare(f"a whole request, {CLIENTS} clients", lambda: list(threads.map(ask("/without"), clients)),
                lambda: list(threads.map(ask("/pooled"), clients)), rounds=options.rounds, operations=each * CLIENTS)
    print(f"parsers made for all that was pooled: {pool.stats()['created']}")


if __name__ == "__main__":
    main()
