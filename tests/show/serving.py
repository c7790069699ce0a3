"""A server of the page, as a process of its own, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Served:
    """A process that serves, and the link that it has printed."""

    process: subprocess.Popen[str]
    link: str

    @property
    def origin(self) -> str:
        """Where it is served."""
        return f"http://{urlsplit(self.link).netloc}"

    @property
    def token(self) -> str:
        """What a request must know."""
        return parse_qs(urlsplit(self.link).query)["token"][0]

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """The status and the text of an answer."""
        return self._send(urllib.request.Request(self.origin + path, headers=headers))

    def post(self, question: str, body: Any, **headers: str) -> tuple[int, str]:
        """The status and the text of the answer to a question."""
        given = {"x-token": self.token, "content-type": "application/json", **headers}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = f"{self.origin}/ask/{question}"
        return self._send(urllib.request.Request(path, data, given))

    def ask(self, question: str, body: Any) -> Any:
        """The answer to a question."""
        status, text = self.post(question, body)
        assert status == 200, text
        return json.loads(text)

    @staticmethod
    def _send(request: urllib.request.Request) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@contextlib.contextmanager
def serving(*words: str) -> Iterator[Served]:
    """`dlsim serve` with these words, without a browser of its own, on any free port."""
    call = [sys.executable, "-m", "dlsim", "serve", "--no-browser", "--port", "0", *words]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Served(process, process.stdout.readline().strip())
        finally:
            process.terminate()
            process.wait(timeout=30)
