"""The server of the page: on this machine's loopback, for who has the token, and no files.

Starlette routes and checks, uvicorn listens. What is asked for is computed in threads; the
compiled engine leaves the others room.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable

from dlsim.scenario import DlsimError
from dlsim.scenario.errors import lacking
from dlsim.show.answers import QUESTIONS, answer
from dlsim.show.resources import static
from dlsim.show.states import warm

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route
except ImportError:
    raise DlsimError(lacking("serve", "starlette and uvicorn", "serve")) from None

LOOPBACK = "127.0.0.1"
PORT = 8650  # if nobody has it: so that a link still leads there tomorrow
LARGEST = 64 << 20  # bytes of a request; a scenario may hold many observations
KINDS = {"css": "text/css", "js": "text/javascript"}
FILES = ("style.css", "page.css", "chart.js", "film.js", "lesson.js", "page.js")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def listening(port: int | None) -> socket.socket:
    """A socket on the loopback: at `port`, or at one of ours or any that is free.

    Raises `DlsimError` where `port` is taken.
    """
    for wanted in (PORT, 0) if port is None else (port,):
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((LOOPBACK, wanted))
            found.listen()  # whoever opens the link before all is loaded waits
        except OSError as error:
            found.close()
            reason = error.strerror
            continue
        return found
    raise DlsimError(f"serve: --port {port}: cannot be listened on: {reason}")


def application(port: int, token: str, first: str) -> Starlette:
    """The page. `first`: the TOML of the scenario that it begins with; "" for one of ours."""
    hosts = {f"{name}:{port}" for name in (LOOPBACK, "localhost")}

    def refused(request: Request) -> Response | None:
        """Why a request is not answered: a page elsewhere that leads here under another name."""
        if request.headers.get("host") not in hosts:
            return PlainTextResponse("This host is not served.", 403, HEADERS)
        origin = request.headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in hosts:
            return PlainTextResponse("Requests from other pages are not answered.", 403, HEADERS)
        return None

    def known(given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), token.encode())

    async def page(request: Request) -> Response:
        if not known(request.query_params.get("token")):
            text = "This link lacks its token: open the one that dlsim serve has printed."
            return refused(request) or PlainTextResponse(text, 403, HEADERS)
        return refused(request) or Response(static("page.html"), 200, HEADERS, "text/html")

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            return refused(request) or PlainTextResponse("no such file", 404, HEADERS)
        kind = KINDS[name.rpartition(".")[2]]
        return refused(request) or Response(static(name), 200, HEADERS, kind)

    async def ask(request: Request) -> Response:
        question = request.path_params["question"]
        if (why := refused(request)) is not None:
            return why
        if not known(request.headers.get("x-token")) or question not in QUESTIONS:
            return PlainTextResponse("no token, or no such question", 403, HEADERS)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return PlainTextResponse("too large", 413, HEADERS)
        found = await run_in_threadpool(answer, question, body)
        return Response(found, 200, HEADERS, "application/json")

    async def begin(request: Request) -> Response:
        if not known(request.headers.get("x-token")):
            return PlainTextResponse("no token", 403, HEADERS)
        return refused(request) or Response(first, 200, HEADERS, "text/plain")

    return Starlette(
        routes=[
            Route("/", page),
            Route("/static/{name}", file),
            Route("/first", begin),
            Route("/ask/{question}", ask, methods=["POST"]),
        ]
    )


def serve(first: str, state: str, port: int | None, ready: Callable[[str], object]) -> None:
    """Serve the page until the process is interrupted; `ready` is called with its link.

    `state`: what a link holds behind its #, without it; "" for the beginning.
    """
    with listening(port) as found:
        chosen = found.getsockname()[1]
        token = secrets.token_urlsafe(16)
        config = uvicorn.Config(
            application(chosen, token, first),
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        threading.Thread(target=warm, daemon=True).start()
        ready(f"http://{LOOPBACK}:{chosen}/?token={token}" + (f"#{state}" if state else ""))
        uvicorn.Server(config).run(sockets=[found])
