import re

import pytest
from torch.utils.data import DataLoader

from dlsim.validation.observing.target import TargetError, load_step, load_target
from tests.modules import module_here

SOURCE = """
import time
from torch.utils.data import DataLoader

made = DataLoader(range(4), batch_size=2)
number = 3


class Data:
    @staticmethod
    def loader():
        return made


def make():
    return DataLoader(range(6))


def both():
    return made, made


def asks(name):
    return made


def broken():
    raise ValueError("no such disk")


def leaves():
    raise SystemExit("usage: train")


def trains():
    loader = make()


def step(batch):
    return batch / 2


class Model:
    def __init__(self):
        self.seen = []

    def __call__(self, batch):
        self.seen.append(batch)
        return len(self.seen)


def hangs():
    while True:
        try:
            time.sleep(10)
        except Exception:
            pass


named = type("DataLoader", (), {"__module__": __name__})()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module, `loaders_here`, in a directory of its own."""
    with module_here(tmp_path, monkeypatch, "loaders_here", SOURCE) as path:
        yield path


def test_modules_and_files_lead_to_loaders(module):
    """Objects, functions and dotted names are found, in modules and in files."""
    assert len(load_target("loaders_here:made")) == 2
    assert len(load_target("loaders_here:make")) == 6
    assert len(load_target("loaders_here:Data.loader")) == 2
    assert isinstance(load_target(f"{module}:make"), DataLoader)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("loaders_here", "expected module:name or file.py:name"),
        ("nowhere.at_all:make", "cannot be imported: ModuleNotFoundError: No module named"),
        ("nowhere.py:make", "there is no file nowhere.py"),
        ("loaders_here:nothing", "loaders_here has no nothing"),
        ("loaders_here:number", "expected a torch DataLoader, got int"),
        ("loaders_here:named", "expected a torch DataLoader, got loaders_here.DataLoader"),
        ("loaders_here:both", "expected a torch DataLoader, got tuple"),
        ("loaders_here:asks", "TypeError: asks() missing 1 required positional argument: 'name'"),
        ("loaders_here:broken", "ValueError: no such disk ({file}, line 28)"),
        ("loaders_here:leaves", "SystemExit: usage: train ({file}, line 32)"),
        ("loaders_here:trains", "got NoneType; end it with `return` and the loader"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(module, target, message):
    """Whatever is wrong with a target, one line says what, and where in the user's code."""
    with pytest.raises(TargetError, match=re.escape(message.format(file=module))) as caught:
        load_target(target)
    assert str(caught.value).startswith(f"{target}: ")
    assert "\n" not in str(caught.value)


def test_errors_while_importing_are_said_in_one_line(module):
    """An exception or a mistake in the module itself is reported with its place."""
    module.write_text("import os\n1 / 0\n")
    with pytest.raises(TargetError, match=r"ZeroDivisionError: .*loaders_here\.py, line 2\)"):
        load_target("loaders_here:make")
    module.write_text("def make(:\n")
    with pytest.raises(TargetError, match=r"SyntaxError: .*loaders_here\.py, line 1\)"):
        load_target(f"{module}:make")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import argparse\n\nargparse.ArgumentParser().parse_args(['--epochs'])\n",
            "SystemExit: 2 ({file}, line 3); what reads a command line, or ends the process",
        ),
        (
            "from torch.utils.data import DataLoader\nlist(DataLoader([None]))\n",
            "({file}, line 2); what loads batches belongs below `if __name__",
        ),
    ],
)
def test_scripts_that_do_more_than_define(module, code, message):
    """A script that trains, or reads its command line, when imported is told where that belongs."""
    module.write_text(code)
    with pytest.raises(TargetError, match=re.escape(message.format(file=module))):
        load_target("loaders_here:make")


@pytest.mark.parametrize("name", ["Module", "module", "make_module"])
def test_what_has_a_loader_for_training(module, name):
    """Lightning's modules, or their classes: set up as a fit does it, then asked."""
    more = """
class Module:
    calls = ()
    def prepare_data(self):
        self.calls += ("prepared",)
    def setup(self, stage):
        self.calls += (stage,)
    def train_dataloader(self):
        assert self.calls == ("prepared", "fit")
        return DataLoader(range(5))

module = Module()
def make_module():
    return Module()
"""
    module.write_text(SOURCE + more)
    assert len(load_target(f"loaders_here:{name}")) == 5


def test_a_file_with_the_name_of_another_module_is_refused(module, tmp_path):
    """A file is not silently taken for the module of the same name that is imported already."""
    (tmp_path / "json.py").write_text("made = 1")
    with pytest.raises(TargetError, match="another module is called json, too"):
        load_target(f"{tmp_path / 'json.py'}:made")


def test_code_that_hangs_is_given_up(module):
    """User code that takes longer than the limit is interrupted, even if it catches everything."""
    with pytest.raises(TargetError, match=r"no loader after 0\.1 s; what trains belongs below"):
        load_target("loaders_here:hangs", limit=0.1)


def test_a_step_is_a_function_or_made_of_a_class(module):
    """It is called with each batch; a class keeps what it has learned from step to step."""
    assert load_step("loaders_here:step")(3) == 1.5
    model = load_step("loaders_here:Model")
    assert [model("one"), model("two")] == [1, 2]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("loaders_here:number", "expected a function to call with each batch, got int"),
        ("loaders_here:nothing", "loaders_here has no nothing"),
        ("loaders_here", "expected module:name or file.py:name"),
    ],
)
def test_no_step(module, target, message):
    """What is nothing to call is refused in one line."""
    with pytest.raises(TargetError, match=f"^{target}: {message}$"):
        load_step(target)


def test_an_exception_in_a_step_is_said_in_one_line(module):
    """With its place in the user's code."""
    with pytest.raises(TargetError, match=r"step: TypeError: .*loaders_here\.py, line \d+\)$"):
        load_step("loaders_here:step")("text")
