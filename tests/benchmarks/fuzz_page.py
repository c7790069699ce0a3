"""Thousands of odd requests to the page: each is answered, or refused in words, and nothing else.

    python -m tests.benchmarks.fuzz_page --count 3000 --seed 1

A failure is any of: no answer within `PATIENCE` seconds, a status of 500 or more, an answer to a
question that is no JSON or holds NaN, a refusal of more than one line or of an unreadable length,
and a server that is gone.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import random
import sys
from typing import Any
from urllib.parse import quote, urlsplit

from tests.benchmarks.mutants.trees import VALUES
from tests.show.serving import Served, serving

PATIENCE = 60.0  # seconds, of a machine on which others compute, too
LONGEST = 600  # characters of a refusal
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
PATHS = (
    "/",
    "/first",
    "/static/page.js",
    "/static/../page.py",
    "/ask/",
    "/ask/x",
    "/a/b",
    "//",
    "/%00",
)
STATE: dict[str, Any] = {
    "preset": "imagenet_a100",
    "changes": {"consumer.stop_after": "12", "loader.num_workers": "2"},
}
CHANGED = (
    "loader.num_workers",
    "loader.batch_size",
    "dataset.length",
    "consumer.step",
    "job.ranks",
)


def request(rng: random.Random, served: Served) -> tuple[str, str, bytes, dict[str, str]]:
    """A method, a path, a body and headers."""
    from dlsim.show.answers import QUESTIONS

    headers = {"x-token": served.token, "content-type": "application/json"}
    if rng.random() < 0.2:
        path = rng.choice(PATHS) + rng.choice(
            ["", "?token=x", f"?token={served.token}", "?" + "a" * 5000]
        )
        if rng.random() < 0.3:
            headers["x-token"] = rng.choice(["", "x", "a" * 5000, "\xe9"])
        return rng.choice(METHODS), path, b"", headers
    question = rng.choice(list(QUESTIONS))
    return "POST", f"/ask/{quote(question)}", body(rng), headers


def body(rng: random.Random) -> bytes:
    """What is asked, sound or odd."""
    state = json.loads(json.dumps(STATE))
    for _ in range(rng.randrange(3)):
        where = (
            rng.choice([state, state["changes"]]) if isinstance(state["changes"], dict) else state
        )
        key = rng.choice(
            [*CHANGED, "preset", "toml", "changes", "seed", "zoom", "rank", "brief", "x"]
        )
        value = rng.choice(VALUES)
        where[key] = value if where is state or rng.random() < 0.3 else str(value)
    asked = rng.choice(
        [
            state,
            {"a": state, "b": STATE},
            {"state": state, "key": "loader.num_workers", "values": [rng.choice(VALUES), 1]},
            {"state": state, "batch": rng.choice(VALUES)},
            {"name": rng.choice(VALUES)},
            rng.choice(VALUES),
        ]
    )
    content = json.dumps(asked).encode("utf-8", "replace")
    how = rng.random()
    if how < 0.05:
        return content[: rng.randrange(len(content) + 1)]
    if how < 0.08:
        return b"[" * 100_000
    return content


def fault(served: Served, asked: tuple[str, str, bytes, dict[str, str]]) -> str | None:
    """What is wrong with how the request is answered; None if nothing is."""
    method, path, content, headers = asked
    connection = http.client.HTTPConnection(urlsplit(served.origin).netloc, timeout=PATIENCE)
    try:
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {type(error).__name__}"
    finally:
        connection.close()
    if answer.status >= 500:
        return f"status {answer.status}: {path[:20]}"
    if not path.startswith("/ask/") or answer.status != 200:
        return None
    try:
        found = json.loads(text, parse_constant=lambda name: f"<{name}>")
    except ValueError:
        return f"no JSON: {text[:60]!r}"
    if "<NaN>" in str(found) or "<Infinity>" in str(found):
        return "not a number in an answer"
    refusal = found.get("error") if isinstance(found, dict) else None
    if refusal is not None and (len(refusal) > LONGEST or not refusal.isprintable()):
        return f"refused unreadably ({len(refusal)} characters): {refusal[:80]!r}"
    return None


def main() -> None:
    """Print each fault once, with its request, and how often there were any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found: collections.Counter[str] = collections.Counter()
    with serving() as served:
        for number in range(options.count):
            asked = request(random.Random(f"{options.seed} {number}"), served)
            wrong = fault(served, asked)
            if served.process.poll() is not None:
                print(f"{number}: the server is gone: {asked!a}"[:900])
                sys.exit(1)
            if wrong is None:
                continue
            if not found[wrong]:
                print(
                    f"{number}: {wrong}\n    {asked[0]} {asked[1][:80]} {asked[2][:600]!a}",
                    flush=True,
                )
            found[wrong] += 1
    print(f"{sum(found.values())} of {options.count} ended badly")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
