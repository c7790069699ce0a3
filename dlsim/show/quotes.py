"""The rules of the schedule as docs/model.md has them: by number, with the line they stand in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from dlsim.show.resources import document

PAGE = "docs/model.md"
# Each rule by a name of ours, and the words by which it is found.
WORDS = {
    "window": "starts the workers one after another",
    "credit": "sends one more",
    "turn": "The next worker in turn gets it",
    "work": "takes one index list after another",
    "next": "takes results off that queue",
    "ended": "whose iterator ends",
    "edge": "At the end of an epoch",
    "endless": "A sampler that never ends",
    "error": "An exception in a worker",
    "alone": "Without workers",
}
_RULE = re.compile(r"^(\d+)\. ((?:.+\n)(?:   .+\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Rule:
    """A rule: its number and its text in docs/model.md, and the line where it begins."""

    number: int
    line: int
    text: str


@cache
def rules() -> dict[str, Rule]:
    """All rules, by the names in `WORDS`."""
    page = document("model.md").read_text(encoding="utf-8")
    begin = page.index("## The rules")
    found = [
        Rule(int(match[1]), page.count("\n", 0, match.start()) + 1, " ".join(match[2].split()))
        for match in _RULE.finditer(page, begin, page.index("\n## ", begin))
    ]
    return {
        name: next(rule for rule in found if words in rule.text) for name, words in WORDS.items()
    }
