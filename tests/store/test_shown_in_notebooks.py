"""Stores, plans and splits show themselves in notebooks: escaped, short, and without a pixel read."""

import shutil

import numpy as np
import pytest
from conftest import speckle, write_band
from rasterio import Affine

import sarzarr as sz
from sarzarr.store.place import Folder

HOSTILE = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown") / HOSTILE.replace("/", "")
    folder.mkdir()
    for i in range(23):
        place = Affine(10, 0, 500_000 + 20_000 * (i % 5), 0, -10, 5_400_000 - 20_000 * (i // 5))
        write_band(folder / f"s{i:02}_vv.tif", speckle((300, 300), seed=i), transform=place)
    known = {"quantity": "sigma0", "representation": "power", "strict": True}
    made = sz.ingest(sz.plan_ingest(sorted(folder.glob("*.tif")), folder / f"{folder.name}.zarr", **known))
    sz.make_split(made, by="scene", val_fraction=0.3, notes=HOSTILE)
    return made.anew()


def test_names_and_notes_of_others_are_escaped(store, tmp_path):
    split = sz.make_split(store, by="scene", val_fraction=0.3, notes=HOSTILE, fresh=True)
    plan = sz.plan_ingest(sorted(store.root.parent.glob("*.tif"))[:2], tmp_path / store.root.name)
    for shown in (store.anew()._repr_html_(), split._repr_html_(), plan._repr_html_()):
        assert "<script>" not in shown
        assert "&lt;script&gt;" in shown
        assert shown.count("<details") >= 2


def test_rows_are_few_and_how_many_more_is_said(store):
    shown = store._repr_html_()
    assert "s19" in shown
    assert "s20" not in shown
    assert "... and 3 more" in shown
    assert "23 scenes" in shown
    for part in ("vv/sigma0", "Patch indices", "Splits", "Catalog, by scene"):
        assert part in shown


def test_no_pixel_is_read_and_no_document_of_a_scene_that_is_not_listed(store, monkeypatch):
    keys = []
    for name in ("get", "get_ranges", "descriptor"):
        real = getattr(Folder, name)

        def watched(self, key, *others, real=real, **more):
            keys.append(key)
            return real(self, key, *others, **more)

        monkeypatch.setattr(Folder, name, watched)
    assert store.anew()._repr_html_()
    assert keys
    assert not [key for key in keys if "manifest" in key or key.startswith("patches/default/c")]
    assert not [key for key in keys if "/vv/" in key or "/vv_flags/" in key]
    assert not [key for key in keys if key.startswith(("scenes/s20", "scenes/s21", "scenes/s22"))]


def test_an_empty_store_shows_itself(tmp_path):
    np.savez(tmp_path / "scan.npz", diffraction=np.ones((4, 8, 8)), xcoords=np.arange(4.0), ycoords=np.arange(4.0),
             probeGuess=np.ones((8, 8), complex), objectGuess=np.ones((20, 20), complex))  # fmt: skip
    made = sz.import_ptychography(tmp_path / "scan.npz", tmp_path / "scans.zarr").store
    assert "0 scenes" in made.anew()._repr_html_()


def test_it_renders_in_a_browser_in_light_and_in_the_dark(store, tmp_path):
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (sarzarr[test])"
    )
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no chromium on this machine")
    page_file = tmp_path / "shown.html"
    scheme = "<style>:root{color-scheme:light dark}body{background:canvas;color:canvastext}</style>"
    page_file.write_text(
        f"<!doctype html><meta charset=utf-8>{scheme}<body>{store._repr_html_()}", encoding="utf-8"
    )
    said, colours = [], []
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = running.chromium.launch(executable_path=chromium, args=arguments)
        for dark in ("light", "dark"):
            page = browser.new_page(color_scheme=dark, viewport={"width": 900, "height": 700})
            page.on("console", lambda message: said.append(message.text))
            page.on("dialog", lambda dialog: said.append(dialog.message))
            page.goto(page_file.as_uri())
            colours.append(page.evaluate("getComputedStyle(document.querySelector('.sarzarr td')).color"))
            assert page.locator("table >> visible=true").count() == 1
            page.locator("summary").nth(1).click()
            assert page.locator("table >> visible=true").count() == 2
        browser.close()
    assert not said
    assert colours[0] != colours[1]
