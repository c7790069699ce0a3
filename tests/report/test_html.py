from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dlsim
from dlsim.cli import main
from dlsim.report.job_pages import watched_page
from dlsim.report.pages import run_page
from dlsim.trace import Meta
from tests.cli.test_cli import SMALL, refused

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
]
VOID = {"meta", "br", "path", "use"}
# What the page is, laid out in a window as narrow as a phone; the title tells.
PHONE = """<iframe src="{page}" style="border:0;width:{width}px;height:800px"></iframe>
<script>onload = () => {{
  const inner = document.querySelector("iframe").contentDocument;
  document.title = JSON.stringify({{
    scroll: inner.documentElement.scrollWidth,
    pictures: [...inner.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width),
    font: parseFloat(getComputedStyle(inner.body).fontSize),
    letters: Math.min(...[...inner.querySelectorAll("svg text")].map(text => {{
      const {{a, b}} = text.getScreenCTM();
      return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
    }})),
  }});
}}</script>"""


class Reader(HTMLParser):
    """Takes a page apart: its tags must nest; `links` are what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        """A tag is opened."""
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """A tag is opened and closed."""
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        """A tag is closed."""
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        """Text."""
        self.text += data


def read(page: str) -> Reader:
    """The page, taken apart."""
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small scenario."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "small.toml").write_text(SMALL)
    options = ["--html", str(folder / "a report.html"), "--loader.num-workers", "1"]
    assert main(["report", str(folder / "small.toml"), *options]) == 0
    return folder / "a report.html"


def test_a_report_holds_everything(report: Path) -> None:
    """Answer, reasons, pictures, configuration, trust and the way to repeat it are in the page."""
    page = read(report.read_text())
    assert page.tags.count("svg") == 6
    assert "would help most" in page.text
    headings = re.findall("<h2>(.*?)</h2>", report.read_text())
    assert headings == [
        "Why, and what single changes would gain",
        "How many workers?",
        "One run",
        "Will it fit?",
        "Configuration",
        "How far to trust it",
        "How to repeat it",
    ]
    assert "num_workers = 1" in page.text
    assert f"--loader.num-workers 1 --html '{report}'" in page.text


def test_a_report_by_night(report: Path) -> None:
    """No part of a picture is black or white whatever the page's colours are."""
    page = report.read_text()
    assert "prefers-color-scheme: dark" in page
    drawn = "".join(re.findall("<svg.*?</svg>", page, re.DOTALL))
    painted = set(re.findall("(?:fill|stroke): (#[0-9a-f]{6})", drawn))
    assert not {colour for colour in painted if len(set(re.findall("..", colour[1:]))) == 1}
    assert "fill: var(--paper)" in drawn


def test_a_report_loads_nothing(report: Path) -> None:
    """The page is whole without a network: it refers to nothing but parts of itself."""
    page = read(report.read_text())
    assert all(link.startswith("#") for link in page.links)
    assert "script" not in page.tags
    assert "url(http" not in report.read_text()


def test_the_same_report_again_is_the_same_text(report: Path, tmp_path: Path) -> None:
    """A report depends on nothing but the scenario, the seed, and the versions."""
    first = report.read_text()
    options = ["--html", str(report), "--loader.num-workers", "1"]
    assert main(["report", str(report.parent / "small.toml"), *options]) == 0
    assert report.read_text() == first


def test_a_run_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace has a page, too: of a run that was watched, it says what watching cost."""
    (tmp_path / "small.toml").write_text(SMALL)
    assert main(["run", str(tmp_path / "small.toml"), "--out", str(tmp_path / "run.npz")]) == 0
    options = ["--html", str(tmp_path / "run.html")]
    assert main(["report", str(tmp_path / "run.npz"), *options]) == 0
    assert read((tmp_path / "run.html").read_text()).tags.count("svg") == 3
    trace = dlsim.load_trace(tmp_path / "run.npz")
    meta = Meta(engine="observed", notes={"overhead": "2 µs a sample", "machine": "{}"})
    object.__setattr__(trace, "meta", meta)
    page = read(run_page(trace, name="a <run> & more", repeat=["dlsim report run.npz"]))
    assert "2 µs a sample" in page.text
    assert "a <run> & more" in page.text
    capsys.readouterr()


JOB = """
[loader]
batch_size = 2
num_workers = 1
[dataset]
kind = "map"
length = 40
sample_bytes = "1 KB"
[[dataset.fetch]]
name = "read"
wait = "0.2 s"
[consumer]
step = "0.3 s"
[job]
ranks = 2
differs = [{ rank = 1, loader = 3.0 }]
"""


def test_a_job_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a job the page has its ranks, who was waited for, and what would help all of them."""
    (tmp_path / "two.toml").write_text(JOB)
    assert main(["report", str(tmp_path / "two.toml"), "--html", str(tmp_path / "two.html")]) == 0
    text = (tmp_path / "two.html").read_text()
    page = read(text)
    assert page.tags.count("svg") == 4
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "Why, and what single changes would gain",
        "How many workers in each rank?",
        "One run: its ranks",
        "Will it fit?",
        "Configuration",
        "How far to trust it",
        "How to repeat it",
    ]
    assert "Rank 1 is waited for the longest (100.0 % of that" in page.text
    assert "2 ranks on a node, a barrier every step; each: 1 worker" in page.text
    rows = re.findall(
        r"<tr><td>([01])</td>(?:<td>[^<]*</td>){4}<td>(\d+)</td><td>([^<]*)</td>", text
    )
    assert [(rank, last) for rank, last, _ in rows] == [("0", "0"), ("1", "10")]
    assert rows[0][2] == "0 s"


def test_a_run_of_a_job_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a job's file has is shown as it was; of one that was watched, what watching cost."""
    (tmp_path / "two.toml").write_text(JOB)
    assert main(["run", str(tmp_path / "two.toml"), "--out", str(tmp_path / "two.npz")]) == 0
    options = ["--html", str(tmp_path / "run.html")]
    assert main(["report", str(tmp_path / "two.npz"), *options]) == 0
    page = read((tmp_path / "run.html").read_text())
    assert page.tags.count("svg") == 1
    assert "Rank 1 is waited for the longest" in page.text
    job = dlsim.load_job(tmp_path / "two.npz")
    meta = Meta(engine="observed", notes={"overhead": "2 µs a sample", "machine": "{}"})
    ranks = tuple(replace(trace, meta=meta) for trace in job.ranks)
    watched = replace(job, ranks=ranks, meta=Meta(engine="observed"))
    page = read(watched_page(watched, name="a <job>", repeat=["dlsim report two.npz"]))
    assert "rank 1, overhead: 2 µs a sample" in page.text
    assert "a <job>" in page.text
    assert "2 ranks, engine observed" in page.text


def test_profiles_of_ranks_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of profiles, as torch.profiler writes them, is a job."""
    (tmp_path / "two.toml").write_text(JOB)
    folder = str(tmp_path / "ranks")
    assert main(["run", str(tmp_path / "two.toml"), "--profiles", folder]) == 0
    capsys.readouterr()
    assert main(["report", folder, "--html", str(tmp_path / "run.html")]) == 0
    assert "Rank 1 is waited for the longest" in capsys.readouterr().out
    page = read((tmp_path / "run.html").read_text())
    assert "2 ranks, engine torch.profiler" in page.text
    assert main(["report", folder, "--loader.num-workers", "3"]) == 2
    assert "is a run, and has no loader.num_workers to change" in capsys.readouterr().err


def test_a_run_is_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run has no keys that could be changed."""
    path = tmp_path / "run.npz"
    dataset = dlsim.MapDataset(4, [dlsim.Stage("read", wait=dlsim.Constant(0.1))])
    dlsim.save(dlsim.simulate(dlsim.Scenario(loader=dlsim.Loader(), dataset=dataset)), path)
    words = [str(path), "--loader.num-workers", "3", "--html", str(tmp_path / "run.html")]
    assert main(["report", *words]) == 2
    expected = f"dlsim: report: {path} is a run, and has no loader.num_workers to change\n"
    assert capsys.readouterr().err == expected


def test_what_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page that could not be written is refused before anything is simulated."""
    (tmp_path / "small.toml").write_text(SMALL)
    message = refused(capsys, "report", tmp_path / "small.toml", "--html", "/nowhere/a.html")
    assert message == "/nowhere/a.html: cannot be written: there is no directory /nowhere"


def browse(folder: Path, *arguments: str) -> str:
    """What the browser prints."""
    call = [str(BROWSER), *OPTIONS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("width", [360, 1100])
def test_a_report_in_a_browser(report: Path, tmp_path: Path, width: int) -> None:
    """On a phone and on a desk, all pictures can be read; nothing is wider than the window."""
    frame = tmp_path / "frame.html"
    frame.write_text(PHONE.format(page=report.as_uri(), width=width))
    seen = browse(tmp_path, f"--window-size={width + 100},900", "--dump-dom", frame.as_uri())
    found = json.loads(re.search("<title>(.*?)</title>", seen)[1])
    assert found["scroll"] <= width
    assert len(found["pictures"]) == 6
    assert all(300 < picture <= width for picture in found["pictures"])
    assert found["font"] == 16
    assert found["letters"] > 7  # pixels; those of batch numbers are the smallest


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_report_on_paper(report: Path, tmp_path: Path) -> None:
    """The page can be printed, on a few sheets."""
    paper = tmp_path / "report.pdf"
    browse(tmp_path, f"--print-to-pdf={paper}", report.as_uri())
    assert paper.read_bytes().startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type ?/Page\b", paper.read_bytes())) <= 8
