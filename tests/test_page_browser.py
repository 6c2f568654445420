"""The page in a real browser: sorting, views, filters, keyboard, links, narrow and dark screens, paper; and no word on the console."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import Browser, browser
from test_page import a_table
from test_tables import Case, a_case

from harness.commands.rendering import Renderer
from harness.experiments.workspace import Workspace
from harness.reporting.page import compose, document
from harness.training.settings import BUDGETS

ROWS = """return [...document.querySelector('table.numbers').tBodies[0].rows].filter(r => r.offsetParent)
  .map(r => r.cells[0].firstChild.textContent.trim())"""
SHOWN = "return [...document.querySelectorAll('table.numbers .' + arguments[0])].filter(e => e.offsetParent).length"
SORT = "return document.querySelectorAll('table.numbers')[0].tHead.rows[0].cells[arguments[0]].getAttribute('aria-sort')"
FOCUS = "const c = document.activeElement; return [c.parentElement.cells?.[0].firstChild.textContent.trim(), c.cellIndex]"
CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data]; };
const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; }
  return rgb(matchMedia('(prefers-color-scheme: dark)').matches ? '#000' : '#fff'); };
return [...document.querySelectorAll('body *')].filter(e => e.offsetParent && !e.closest('svg, .drawing, .sr') &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
  return [(a + .05) / (b + .05), `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 30)}`]; }).filter(([ratio]) => ratio < 4.5);
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A rendered table of real and one of simulated data, with a failed run and a lost one; ``index.html`` beside the records."""
    folder = tmp_path_factory.mktemp("results")
    case = a_case(folder)
    case.fail("Weak_1", 2)
    case.lose("Weak_1", 3)
    renderer = Renderer(Workspace(folder), ("svg",))
    (real,) = renderer.table(case.spec, case.card, BUDGETS["smoke"], case.plan)
    simulated = real.model_copy(update={"dataset": "mosei", "data": "mosei@simulated", "data_title": "CMU-MOSEI", "simulated": True})
    document.write(renderer.folder / f"{simulated.name}.json", simulated)
    renderer.page()
    return case


@pytest.fixture
def page(window: Browser, case: Case) -> Iterator[Browser]:
    """The page, freshly opened on a wide screen; afterwards the console must be silent."""
    window.errors()
    window.open(case.store.root.parent / "index.html")
    yield window
    assert window.errors() == []


def test_columns_sort_down_up_and_back(page: Browser) -> None:
    order = ["Weak_1", "Strong", "Only | cited", "majority", "ridge"]
    assert page.run(ROWS) == order and page.run(SORT, 2) == "none"
    page.click("table.numbers thead button", 2)
    down = page.run(ROWS)
    assert page.run(SORT, 2) == "descending" and down[-1] == "Only | cited"  # the hole comes last
    page.click("table.numbers thead button", 2)
    assert page.run(SORT, 2) == "ascending" and page.run(ROWS) == [*down[:-1][::-1], "Only | cited"]
    page.click("table.numbers thead button", 2)
    assert page.run(SORT, 2) == "none" and page.run(ROWS) == order
    page.click("table.numbers thead button", 0)
    page.click("table.numbers thead button", 0)
    assert page.run(ROWS) == sorted(order, key=str.lower) and page.run(SORT, 0) == "ascending" and page.run(SORT, 2) == "none"


def test_a_sorted_column_sorts_anew_by_what_is_shown(page: Browser) -> None:
    page.click("table.numbers thead button", 2)
    page.click(".views label", 1)
    assert page.run(ROWS) == ["Weak_1", "Only | cited", "Strong"]  # published MAE 0.900, 0.850, 0.800; floors have none


def test_views_show_what_they_say(page: Browser) -> None:
    seen = {}
    for number, view in enumerate(("both", "published", "measured", "difference")):
        page.click(".views label", number)
        seen[view] = [page.run(SHOWN, kind) > 0 for kind in ("m", "p", "d")]
    assert seen == {
        "both": [True, True, False],
        "published": [False, True, False],
        "measured": [True, False, False],
        "difference": [False, False, True],
    }


def test_data_sets_and_models_are_filtered(page: Browser) -> None:
    page.run("const s = document.getElementById('dataset'); s.value = 'mosei'; s.dispatchEvent(new Event('change'))")
    sections = "return [...document.querySelectorAll('section.table')].filter(e => e.offsetParent).map(e => e.dataset.dataset)"
    assert page.run(sections) == ["mosei"]
    page.run("const s = document.getElementById('dataset'); s.value = ''; s.dispatchEvent(new Event('change'))")
    page.click("#filter")
    page.press(*"WEAK")
    assert page.run(ROWS) == ["Weak_1"] and page.run("return document.getElementById('status').textContent") == "2 of 10 rows"


def test_a_cell_tells_its_verdict_to_mouse_and_keyboard(page: Browser) -> None:
    tip = "const t = document.getElementById('tip'); return t.hidden ? '' : t.textContent"
    page.hover("table.numbers tbody .c")
    text = page.run(tip)
    assert "Published number: open: 1 of 3 runs finished." in text and "Test: " in text and "against Strong" in text
    page.hover("h1")
    assert page.run(tip) == ""
    page.run("document.querySelector('table.numbers tbody .c').focus()")
    assert "against Strong" in page.run(tip)
    assert page.run("return document.activeElement.getAttribute('aria-describedby')") == "tip"
    page.press("Escape")
    assert page.run(tip) == ""


def test_arrows_move_and_enter_opens_the_runs(page: Browser) -> None:
    page.run("document.querySelector('table.numbers tbody .c').focus()")
    page.press("Right", "Down")
    assert page.run(FOCUS) == ["Strong", 3]
    page.press("Up", "Left", "Left", "Up")
    assert page.run(FOCUS) == ["Weak_1", 2]
    assert page.run("return document.querySelectorAll('table.numbers')[0].querySelectorAll('[tabindex=\"0\"]').length") == 1
    page.press("Enter")
    assert page.run("return document.getElementById('cell').open") is True
    lines = page.run("return [...document.querySelectorAll('#cell tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    assert [line[0] for line in lines] == ["seed 1", "seed 2", "seed 3"]
    assert "diverged" in lines[1][1] and lines[1][4] == "failure" and lines[2][1] == "not run"
    page.press("Escape")
    assert page.run("return document.getElementById('cell').open") is False and page.run(FOCUS) == ["Weak_1", 2]


def test_every_link_leads_to_a_file_or_a_place(page: Browser) -> None:
    """The links of every cell's runs too, which the script makes."""
    links = page.run("""
      const found = new Set([...document.querySelectorAll('a')].map(a => a.href));
      for (const cell of document.querySelectorAll('table.numbers tbody .c')) {
        cell.click(); document.querySelectorAll('#cell a').forEach(a => found.add(a.href)); document.getElementById('cell').close(); }
      return [...found]""")
    here = page.run("return location.href.split('#')[0]")
    places = [link for link in links if link.startswith(f"{here}#")]
    files = [Path(unquote(urlsplit(link).path)) for link in links if link not in places]
    assert len(files) > 20 and [path for path in files if not path.is_file()] == []
    assert len(places) > 5 and all(
        page.run("return !!document.getElementById(arguments[0])", unquote(urlsplit(one).fragment)) for one in places
    )
    assert {path.name for path in files} >= {"record.json", "runtime.json", "failure.json", "made_t1_mosi-tiny.tex"}


def test_nothing_is_asked_of_the_network(page: Browser) -> None:
    assert page.run("return performance.getEntriesByType('resource').map(r => r.name)") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(page: Browser, scheme: str) -> None:
    page.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    for number in range(4):
        page.click(".views label", number)
        assert page.run(CONTRAST) == []
    page.cdp("Emulation.setEmulatedMedia", features=[])


def test_a_phone_scrolls_down_only(window: Browser, case: Case) -> None:
    window.open(case.store.root.parent / "index.html", 390, 800)
    assert window.run("return document.documentElement.scrollWidth") <= 390
    assert window.run("return document.querySelector('nav details').open") is False
    assert window.run("const s = document.querySelector('.scroll'); return s.scrollWidth > s.clientWidth") is True
    controls = "return [...document.querySelectorAll('.bar select, .bar input[type=search], .views span')].map(e => e.offsetHeight)"
    assert min(window.run(controls)) >= 24


def test_paper_gets_everything_that_is_folded(page: Browser) -> None:
    pdf = base64.b64decode(page.cdp("Page.printToPDF", landscape=True)["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
    assert page.run("return [...document.querySelectorAll('main details')].every(d => d.open)") is True


def test_five_hundred_rows_are_usable_at_once(window: Browser, tmp_path: Path) -> None:
    """Seconds of the browser's main thread, not of the clock: the machine may do other things too."""

    def spent() -> float:
        return next(one["value"] for one in window.cdp("Performance.getMetrics")["metrics"] if one["name"] == "TaskDuration")

    compose.write(tmp_path, [a_table(500)], {})
    window.cdp("Performance.enable", timeDomain="threadTicks")
    start = spent()
    window.open(tmp_path / "index.html")
    loaded = spent()
    assert len(window.run(ROWS)) == 500
    before = spent()
    window.run("document.querySelectorAll('table.numbers thead button')[3].click(); document.body.offsetHeight")
    assert 0 < loaded - start < 4 and 0 < spent() - before < 1.5
    assert window.run(ROWS)[0] == "Model 499" and window.errors() == []
