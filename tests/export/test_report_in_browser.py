"""A report in a real browser: it renders, asks nobody, fits a phone and a desk, is read in the dark and by key."""

import shutil
from itertools import pairwise

import pytest
from places import store_at

import sarzarr as sz

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
NAME = """<img src=x onerror=alert(1)>"&.zarr"""
SIZES = [(390, 844), (1400, 900)]
CONTRAST = """
() => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => 0.2126 * linear(c[0] / 255) + 0.7152 * linear(c[1] / 255) + 0.0722 * linear(c[2] / 255);
  const behind = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const c = rgb(getComputedStyle(n).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const out = [];
  const words = "h1,h2,h3,p,a,dt,dd,td,th,caption,summary,figcaption,label,button,li,svg text";
  for (const node of document.querySelectorAll(words)) {
    if (!node.textContent.trim() || node.closest(".skip")) continue;
    const style = getComputedStyle(node);
    const inSvg = node.closest("svg") !== null;
    if (inSvg && !node.getAttribute("style").includes("currentColor")) continue;  // on a patch of its own colour
    const [a, b] = [light(rgb(inSvg ? style.fill : style.color)), light(behind(node))];
    const said = node.tagName + ": " + node.textContent.trim().slice(0, 40);
    out.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), said]);
  }
  return out;
}
"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
WIDTHS = "() => [...document.querySelectorAll('svg[role=img]')].map((s) => s.getBoundingClientRect().width)"
REACHABLE = """
() => [...document.querySelectorAll("a, summary, input, thead button, .scroll")].map((n, i) => (n.dataset.n = i, i))
"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (sarzarr[plot])")
    folder = tmp_path_factory.mktemp("seen")
    store = store_at(folder, [(15, 48.7), (15.05, 48.7), (-60, -3)], name=NAME)
    sz.make_split(store, by="scene", val_fraction=0.4)
    return sz.write_report(store.anew(), folder / "r.html", verification=sz.verify(store)).path


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (sarzarr[test])"
    )
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("there is no chromium on PATH")
    with playwright.sync_playwright() as made:
        browser = made.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def view(browser, page_file):
    """Return a function that opens the report and returns the page; nothing may be said, raised or asked."""
    opened = []

    def open_page(size=SIZES[1], scheme="light"):
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on(
            "request",
            lambda request: said.append(request.url) if not request.url.startswith("data:") else None,
        )
        page.goto(page_file.as_uri(), wait_until="load")
        opened.append((page, said))
        return page

    yield open_page
    for page, said in opened:
        assert said == [page_file.as_uri()], "the file itself, and nothing else"
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_renders_and_fits(view, size, scheme):
    page = view(size, scheme)
    assert page.locator("h1").inner_text() == NAME
    assert page.evaluate(OVERFLOW) == 0
    pictures = page.evaluate("() => [...document.images].map((i) => [i.complete, i.naturalWidth])")
    assert len(pictures) == 3
    assert all(complete and width == 256 for complete, width in pictures)
    assert page.locator("svg[role=img]").count() == 1 + 1 + 2
    widths = page.evaluate(WIDTHS)
    assert min(widths) > 250


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(view, scheme):
    contrasts = view(scheme=scheme).evaluate(CONTRAST)
    assert len(contrasts) > 100
    assert any(text.startswith("text:") for _, text in contrasts), "of plots, too"
    assert min(contrasts)[0] >= 4.5, min(contrasts)


def test_the_dark_is_dark(view):
    colour = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    light, dark = (sum(view(scheme=scheme).evaluate(colour)) for scheme in ("light", "dark"))
    assert light > 700 > 150 > dark


@pytest.mark.parametrize("size", SIZES)
def test_the_tab_key_reaches_everything_in_order_and_shows_where_it_is(view, size):
    page = view(size)
    wanted = page.evaluate(REACHABLE)
    reached = []
    for _ in range(len(wanted) + 20):
        page.keyboard.press("Tab")
        number, outline = page.evaluate(
            "() => [document.activeElement.dataset.n ?? null, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if number is not None and int(number) not in reached:
            reached.append(int(number))
            assert outline != "none"
    assert sorted(reached) == wanted
    assert all(a < b for a, b in pairwise(reached))


def test_the_first_link_skips_to_the_content_and_facts_open_by_keyboard(view):
    page = view()
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("() => document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.querySelector('details').open")


def test_the_table_is_filtered_and_sorted(view):
    page = view()
    page.locator("#words").fill("s0002")
    assert page.locator("#found").inner_text() == "1 of 3 scenes"
    assert page.locator("tbody tr:visible", has_text="s0002").count() == 1
    assert page.locator(".card:visible").count() == 1
    page.locator("#words").fill("")
    assert page.locator(".card:visible").count() == 3
    button = page.get_by_role("button", name="scene", exact=True)
    names = "() => [...document.querySelectorAll('#table tbody th')].map((n) => n.textContent)"
    for order in (1, -1):
        button.click()
        assert page.evaluate(names) == sorted(page.evaluate(names))[::order]


def test_it_is_whole_without_scripts(browser, page_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("#table tbody tr").count() == 3
    assert page.locator("#filter").is_hidden()
    assert page.locator(".card img").count() == 3
    context.close()
