from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dlsim

PACKAGE = Path(__file__).parent.parent / "dlsim"

# Which rooms each room may import from, besides itself.
ALLOWED = {
    "scenario": set(),
    "trace": {"scenario"},
    "engine": {"scenario", "trace"},
    "whatif": {"scenario", "trace", "engine"},
    # predictions are replications, and a campaign of real runs keeps a journal as a sweep does
    "validation": {"scenario", "trace", "engine", "whatif"},
    "report": {"scenario", "trace", "engine", "whatif"},
    "show": {"scenario", "trace", "engine", "whatif", "report"},
    "testing": {"scenario", "trace", "engine", "whatif", "validation"},
    "cli": {"scenario", "trace", "engine", "whatif", "validation", "report", "show"},
}
# Inside a room: which of its parts each part may import from, besides itself. Twins never do.
PARTS = {
    "engine": {
        "processes": set(),
        "native": set(),
        "compiled": {"native"},
        "pipelines": {"processes"},
    },
    "validation": {
        "virtual": set(),
        "observing": set(),
        "calibrating": {"observing"},
        "fidelity": {"observing", "calibrating"},
        "diagnosing": {"observing", "calibrating", "fidelity"},
    },
}
HEAVY = ("torch", "matplotlib", "llvmlite", "scipy.stats", "joblib")


def imports(path: Path) -> set[str]:
    """The full names of all modules imported anywhere in a file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
            found.add(node.module or "")
    return found


def files(room: str) -> list[Path]:
    """The source files of a room, which is a folder or a single module."""
    return sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]


def rooms() -> set[str]:
    """Every folder and module of the package that holds code."""
    return {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    } - {"__init__", "__main__"}


def test_every_room_has_its_place() -> None:
    """No room exists that the import table does not know."""
    assert rooms() <= ALLOWED.keys()


@pytest.mark.parametrize("room", sorted(rooms()))
def test_rooms_import_only_what_they_may(room: str) -> None:
    """Imports between rooms go one way, as the table says."""
    for path in files(room):
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("dlsim.")}
        assert ours & ALLOWED.keys() <= ALLOWED[room] | {room}, path


def parts(room: str) -> set[str]:
    """Every folder inside a room that holds code."""
    return {path.parent.name for path in (PACKAGE / room).glob("*/__init__.py")}


def test_every_part_has_its_place() -> None:
    """No folder exists inside a room that the table of parts does not know."""
    assert {room: parts(room) for room in rooms() if parts(room)} == {
        room: allowed.keys() for room, allowed in PARTS.items()
    }


@pytest.mark.parametrize(
    ("room", "part"), [(room, part) for room, allowed in PARTS.items() for part in allowed]
)
def test_parts_of_a_room_import_only_what_they_may(room: str, part: str) -> None:
    """Imports inside a room go one way; of two twins, neither imports the other."""
    for path in (PACKAGE / room / part).rglob("*.py"):
        names = [name.split(".") for name in imports(path)]
        inside = {name[2] for name in names if name[:2] == ["dlsim", room] and len(name) > 2}
        assert inside & parts(room) <= PARTS[room][part] | {part}, path


def test_only_validation_imports_torch() -> None:
    """Simulating needs no torch: no other room mentions it in an import."""
    for room in rooms() - {"validation"}:
        for path in files(room):
            assert not {name for name in imports(path) if name.split(".")[0] == "torch"}, path


@pytest.mark.parametrize(
    ("code", "not_loaded"),
    [
        ("import dlsim", (*HEAVY, "numpy", "simpy", "msgspec")),
        ("import dlsim; [getattr(dlsim, name) for name in dlsim.__all__]", (*HEAVY, "simpy")),
        (
            "from dlsim.cli import main; assert main(['--help']) == 0",
            (*HEAVY, "simpy", "tqdm", "dlsim.engine", "dlsim.trace", "dlsim.whatif"),
        ),
    ],
    ids=["import dlsim", "all names", "dlsim --help"],
)
def test_starting_loads_nothing_heavy(code: str, not_loaded: tuple[str, ...]) -> None:
    """Importing the package, looking at its names, and asking for help load only what they use."""
    check = (
        f"import sys; {code}; "
        f"print([m for m in {not_loaded!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_public_names_are_found_where_they_are_looked_for() -> None:
    """Every public name and room is an attribute of the package, and nothing else is."""
    for name in dlsim.__all__:
        assert getattr(dlsim, name).__name__ == name
    for room in rooms() - {"cli"}:
        assert getattr(dlsim, room).__name__ == f"dlsim.{room}"
    assert {*dlsim.__all__, *rooms()} - {"cli"} <= set(dir(dlsim))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        dlsim.nothing  # noqa: B018
