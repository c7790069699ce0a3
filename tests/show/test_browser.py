"""The page and a lesson's file in a real browser: chromium, driven by its chromedriver."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dlsim
from dlsim.cli import main
from dlsim.show.answers import Against, against
from dlsim.show.lesson_page import lesson_data
from dlsim.show.lessons import lesson
from dlsim.show.states import State, scenario_of
from tests.show.browsing import MISSING, Browser, browser
from tests.show.serving import Served, serving

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The page, served, with a scenario that is answered at once."""
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser."""
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(served: Served, chromium: Browser) -> Iterator[Browser]:
    """The page as it begins; after the test nothing was said on the console, or asked elsewhere."""
    chromium.size(1280)
    chromium.open(served.link)
    chromium.until("document.documentElement.dataset.ready")
    yield chromium
    assert chromium.complaints() == []
    assert chromium.hosts() <= {served.origin.removeprefix("http://")}


def pull(page: Browser, key: str, stop: str) -> None:
    """Move a slider to a value."""
    page.run(
        """const slider = document.getElementById(`control-${arguments[0]}`).querySelector("input");
        slider.value = slider.stops.indexOf(arguments[1]);
        slider.dispatchEvent(new Event("input", {bubbles: true}));""",
        key,
        stop,
    )


def state(page: Browser) -> dict[str, Any]:
    """What the link holds."""
    return page.wait_for(
        """const bytes = Uint8Array.from(atob(location.hash.slice(3).replaceAll("-", "+")
          .replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
        new Response(new Blob([bytes]).stream().pipeThrough(
          new DecompressionStream("deflate-raw"))).text().then((text) => done(JSON.parse(text)));"""
    )


def figure(page: Browser) -> str:
    """How many samples a second the page shows."""
    return page.run("return document.querySelector('#figures dd').textContent")


def shown_for(changes: dict[str, str]) -> str:
    """How many there are."""
    from dlsim.trace.summary import number

    scenario = scenario_of(State(preset="imagenet_a100", changes=changes))
    return number(dlsim.summarize(dlsim.simulate(scenario)).samples_per_s)


def settled(page: Browser, changes: dict[str, str]) -> None:
    """Wait until the page shows what is right for these changes."""
    page.until(f"document.querySelector('#figures dd')?.textContent === {shown_for(changes)!r}")


def test_it_loads(page: Browser) -> None:
    """The page opens with an answer, figures, four pictures, and what to copy."""
    assert figure(page) == shown_for({})
    page.until("document.getElementById('workers-said').textContent.startsWith('Now')")
    for picture in ("lanes", "occupancy", "waits", "memory", "workers"):
        assert page.run(f"return !!document.querySelector('#{picture} svg[aria-label]')")
    assert page.run("return !!document.querySelector('#workers .ring')")
    assert "num_workers=4" in page.run("return document.getElementById('code').textContent")


def test_every_slider_is_answered(page: Browser) -> None:
    """Each control, moved to its end by the keyboard, is answered by a picture or one line."""
    keys = page.run(
        "return [...document.querySelectorAll('.control input[type=range]')].map(s => s.id)"
    )
    assert len(keys) >= 9
    for key in keys:
        page.run("dlsim.timing.length = 0")
        page.key(f"[id='{key}']", "END")
        page.until("dlsim.timing.length > 0")
        assert page.run("return document.querySelectorAll('#lanes svg').length") == 1
        page.click_text("Undo all changes")
        page.until("Object.keys(arguments).length === 0 && !document.querySelector('.changed')")


def test_the_last_of_fifty_moves_wins(page: Browser) -> None:
    """Fifty moves of sliders in a row are answered by what was set last."""
    for move in range(50):
        pull(page, "loader.num_workers", str(1 + move % 12))
        pull(page, "loader.prefetch_factor", str(1 + move % 3))
    last = {"loader.num_workers": str(1 + 49 % 12), "loader.prefetch_factor": str(1 + 49 % 3)}
    settled(page, last)
    assert state(page)["state"]["changes"] == last


def test_a_refused_value_is_said_at_its_field(page: Browser) -> None:
    """What torch refuses is said in one line at its control; the last good picture stays."""
    pull(page, "loader.prefetch_factor", "4")
    settled(page, {"loader.prefetch_factor": "4"})
    before = page.run("return document.getElementById('lanes').innerHTML")
    pull(page, "loader.num_workers", "0")
    page.until("!document.getElementById('refused').classList.contains('hidden')")
    said = page.run(
        "return document.getElementById('control-loader.prefetch_factor')"
        ".querySelector('.wrong').textContent"
    )
    assert said == "loader.prefetch_factor: needs num_workers above 0"
    assert page.run("return document.getElementById('lanes').innerHTML") == before
    pull(page, "loader.num_workers", "2")
    page.until("document.getElementById('refused').classList.contains('hidden')")


def test_any_key_can_be_set(page: Browser) -> None:
    """A key without a control is set by its dotted name, and can be undone."""
    page.type("[aria-label='dotted key']", "costs.worker_start")
    page.type("[aria-label=value]", "2 s\n")
    settled(page, {"costs.worker_start": "2 s"})
    page.click_text("undo")
    settled(page, {})


def drop(page: Browser, text: str) -> None:
    """Drop a file onto the page."""
    page.run(
        """const files = new DataTransfer();
        files.items.add(new File([arguments[0]], "mine.toml"));
        const event = new DragEvent("drop", {dataTransfer: files, bubbles: true});
        document.body.dispatchEvent(event);""",
        text,
    )


def test_a_file_is_dropped(page: Browser, tmp_path: Path) -> None:
    """A file that is dropped onto the page, or opened, is shown; what is no scenario is refused."""
    scenario = dlsim.replace(scenario_of(State(preset="unet3d_h100")), {"name": "dropped"})
    dlsim.dump(scenario, tmp_path / "mine.toml")
    drop(page, (tmp_path / "mine.toml").read_text())
    page.until("document.title.startsWith('dropped')")
    drop(page, "[loader]\nnum_workers = 2")
    page.until("document.getElementById('refused').textContent.startsWith('dataset: ')")
    assert page.run("return document.title") == "dropped · dlsim"
    page.type("#file", str(tmp_path / "mine.toml"))
    page.until("document.getElementById('refused').classList.contains('hidden')")


def test_which_prefetch_is_enough(page: Browser) -> None:
    """Throughput is drawn against prefetch_factor, too, and the least that is enough is named."""
    page.run(
        """const over = document.getElementById("over");
        over.value = "loader.prefetch_factor";
        over.dispatchEvent(new Event("change"));"""
    )
    wanted = Against(State(preset="imagenet_a100"), "loader.prefetch_factor", (1, 2, 3, 4, 6, 8))
    enough = against(wanted)["enough"]
    page.until(
        f"document.getElementById('workers-said').textContent.endsWith({json.dumps(enough)})"
    )
    label = page.run("return document.querySelector('#workers svg').getAttribute('aria-label')")
    assert label.startswith("Throughput in samples a second against prefetch_factor: 1: ")
    assert page.run("return !!document.querySelector('#workers .ring')")


def test_the_edge_of_an_epoch(page: Browser) -> None:
    """With two epochs a button leads to where one goes over into the other."""
    assert page.run("return document.getElementById('edge').classList.contains('hidden')")
    pull(page, "epochs", "2")
    page.until("!document.getElementById('edge').classList.contains('hidden')")
    page.click("#edge")
    page.until("document.querySelector('#lanes .wait')")
    page.until("location.hash.length > 0")
    begin, end = state(page)["state"]["zoom"]
    trace = dlsim.simulate(scenario_of(State(preset="imagenet_a100", changes={"epochs": "2"})))
    assert begin < trace.epochs.started[1] < end


def test_a_beside_b(page: Browser) -> None:
    """What was kept is compared with what is set now, with the difference and its interval."""
    page.click("#keep")
    pull(page, "loader.num_workers", "6")
    page.until("document.getElementById('difference').textContent.startsWith('B is faster')")
    said = page.run("return document.querySelector('#interval svg').getAttribute('aria-label')")
    assert "interval" in said
    page.click("#swap")
    settled(page, {})
    page.click("#forget")
    page.until("!document.getElementById('difference').textContent")


def test_a_closer_look(page: Browser) -> None:
    """Buttons and dragging show a stretch of time closer; all of it comes back."""
    end = page.run("return document.querySelector('#lanes svg').innerHTML")
    page.click("[data-zoom=in]")
    page.until("!location.hash.includes('none') && document.querySelector('#lanes').innerHTML")
    page.until(f"document.querySelector('#lanes svg').innerHTML !== {json.dumps(end)}")
    assert state(page)["state"]["zoom"] is not None
    page.click("[data-zoom=all]")
    page.until(f"document.querySelector('#lanes svg').innerHTML === {json.dumps(end)}")


def test_a_link_holds_everything(page: Browser, served: Served) -> None:
    """The link that is copied has no token; opened elsewhere it shows the same, kept A and all."""
    page.click("#keep")
    pull(page, "loader.num_workers", "7")
    settled(page, {"loader.num_workers": "7"})
    page.click("#link")
    page.until("dlsim.copied")
    link = page.run("return dlsim.copied")
    assert served.token not in link
    fragment = link.partition("#")[2]
    with serving(link) as elsewhere:
        assert elsewhere.link.endswith(fragment)
    page.open("about:blank")
    page.open(f"{served.link}#{fragment}")
    page.until("document.documentElement.dataset.ready")
    settled(page, {"loader.num_workers": "7"})
    page.until("document.getElementById('difference').textContent.startsWith('B is faster')")


def test_two_tabs(page: Browser, served: Served) -> None:
    """What is set in one tab changes nothing in another."""
    with page.tab(served.link):
        page.until("document.documentElement.dataset.ready")
        pull(page, "loader.num_workers", "9")
        settled(page, {"loader.num_workers": "9"})
    assert figure(page) == shown_for({})
    pull(page, "loader.prefetch_factor", "3")
    settled(page, {"loader.prefetch_factor": "3"})


def test_a_rank_is_chosen(page: Browser) -> None:
    """Of a job it is said which rank is shown, and another one can be chosen."""
    assert page.run("return document.getElementById('of-rank').classList.contains('hidden')")
    page.run(
        """const list = document.getElementById("preset");
        list.value = "cluster_shared_storage";
        list.dispatchEvent(new Event("change"));"""
    )
    page.until("document.querySelectorAll('#rank option').length === 8")
    first = page.run("return document.getElementById('lanes').innerHTML")
    page.run(
        """const list = document.getElementById("rank");
        list.value = "3";
        list.dispatchEvent(new Event("change"));"""
    )
    page.until(f"document.getElementById('lanes').innerHTML !== {json.dumps(first)}")
    assert state(page)["state"]["rank"] == 3
    assert page.run("return document.getElementById('of-rank').textContent").endswith("of 8")


def heard(page: Browser) -> list[tuple[str, str]]:
    """What a screen reader is told of the open page: roles, and names or texts."""
    page.driver.execute_cdp_cmd("Accessibility.enable", {})
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]


def live(page: Browser) -> str:
    """The text of the live regions, as a screen reader is told it."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}

    def text(node: dict[str, Any]) -> str:
        inside = [by_id[child] for child in node.get("childIds", ()) if child in by_id]
        if node["role"]["value"] in ("StaticText", "InlineTextBox"):
            return node.get("name", {}).get("value", "")
        return " ".join(filter(None, map(text, inside)))

    regions = [
        node
        for node in nodes
        if not node["ignored"]
        and any(
            each["name"] == "live" and each["value"]["value"] == "polite"
            for each in node.get("properties", ())
        )
        and node["role"]["value"] == "status"
    ]
    return " ".join(map(text, regions))


OPERATED = {
    "button",
    "checkbox",
    "combobox",
    "slider",
    "spinbutton",
    "textbox",
    "DisclosureTriangle",
}


def test_a_screen_reader_is_told_everything(page: Browser) -> None:
    """Each event of a film is read out, with its time and why; all that is operated has a name."""
    for view in ("explore", "film", "lessons"):
        page.click(f"[data-view={view}]")
        page.until("document.querySelector('main:not(.hidden) svg')")
        named = heard(page)
        assert not [role for role, name in named if role in OPERATED and not name.strip()]
        assert not [role for role, name in named if role == "image" and not name.strip()]
        assert sum(role in OPERATED for role, _ in named) > 6
    film = lesson_data(lesson("rows"))["films"][0]["film"]
    page.until("document.querySelector('#lesson .play')")
    for frame in film["frames"][:12]:
        page.key("body", "ARROW_RIGHT")
        said = live(page)
        assert frame["say"].lower() in said.lower()
        assert frame["why"] in said
        assert frame["time"] in said


def test_the_film_of_a_run(page: Browser) -> None:
    """The run that is set is a film, too; any batch can be jumped to."""
    page.click("[data-view=film]")
    page.until("document.querySelector('#reel .play')")
    page.type("#reel input[type=number]", "\ue009a\ue000150\n")
    page.until("document.querySelector('#reel .say').textContent.startsWith('Batch 150 is sent')")


def play_to_its_end(page: Browser, root: str) -> None:
    """Play a film to its end, then step back."""
    told = f"document.querySelector('{root} .say').textContent"
    page.run(f"""const pace = document.querySelector('{root} select');
        pace.append(new Option('fast', '1000'));
        pace.value = '1000';
        pace.dispatchEvent(new Event('change'));""")
    page.click(f"{root} .play")
    page.until(f"{told} === 'Epoch 0 ends.'")
    page.key("body", "ARROW_LEFT")
    page.until(f"{told} === 'The step on batch 7 ends.'")
    page.key("body", "HOME")
    page.until(f"{told} === 'Before it begins.'")
    page.key("body", "ARROW_RIGHT")
    page.until(f"{told}.startsWith('Epoch 0 begins')")
    page.key("body", "END")
    page.until(f"{told} === 'Epoch 0 ends.'")
    assert page.run(f"return document.querySelectorAll('{root} .token').length") == 0


def test_a_lesson_in_the_page(page: Browser) -> None:
    """A lesson is played to its end and back, by the keyboard."""
    page.click("[data-view=lessons]")
    page.until("document.querySelector('#lesson .play')")
    play_to_its_end(page, "#lesson")


def test_a_lesson_as_a_file(
    chromium: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lesson's file plays from the file system; answers lead into the film; events are text."""
    assert main(["teach", "rows", "--html", str(tmp_path / "lesson.html")]) == 0
    capsys.readouterr()
    chromium.size(390)
    chromium.open((tmp_path / "lesson.html").as_uri())
    chromium.until("document.querySelector('#lesson .play')")
    play_to_its_end(chromium, "#lesson")
    chromium.click(".events ~ *, details > summary")
    chromium.until("document.querySelectorAll('.events li').length === 90")
    assert chromium.run("return document.querySelector('[role=status]').getAttribute('aria-live')")
    chromium.run("document.querySelectorAll('.question')[1].open = true")
    chromium.run("document.querySelectorAll('.question button')[1].click()")
    chromium.until("document.querySelector('.say').textContent === 'Batch 4 is sent to worker 0.'")
    assert chromium.complaints() == []
    assert chromium.hosts() == set()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(page: Browser, width: int, dark: bool) -> None:
    """On a phone and on a desk, by day and by night, all views fit into the window."""
    page.size(width, dark=dark)
    for view in ("explore", "film", "lessons"):
        page.click(f"[data-view={view}]")
        page.until(f"!document.getElementById('{view}').classList.contains('hidden')")
        page.until("document.querySelector('main:not(.hidden) svg')")
        assert page.run("return document.documentElement.scrollWidth") <= width
        colour = page.run("return getComputedStyle(document.body).backgroundColor")
        assert (int(re.search(r"\d+", colour)[0]) < 100) == dark
