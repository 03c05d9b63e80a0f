"""A report is one file that says what the store says: whole or not at all, and nothing in it is run."""

import re
import subprocess
import sys
import zipfile
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import store_at

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.export.report.facts import share_of, sizes
from sarzarr.store.store import BoundsEntry

ROOT = Path(__file__).parents[2]
NAME = """<script>alert('1')</script>&"x" $m_2$.zarr"""
PLACES = [(15, 48.7), (15.05, 48.7), (-60, -3)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (sarzarr[plot])")
    folder = tmp_path_factory.mktemp("report")
    name = NAME.replace("/", "|") if sys.platform != "win32" else "s.zarr"
    made = store_at(folder, PLACES, name=name)
    sz.make_split(made, by="scene", val_fraction=0.4)
    return made.anew()


@pytest.fixture(scope="module")
def page(store, tmp_path_factory):
    made = sz.write_report(store, tmp_path_factory.mktemp("page") / "r.html", verification=sz.verify(store))
    text = made.path.read_text(encoding="utf-8")
    assert (made.size, made.scenes, made.damage) == (len(text.encode()), 3, ())
    return text


def test_every_scene_has_its_pictures_and_facts(store, page):
    for scene in store.scenes:
        assert len(re.findall(f'alt="vv of {scene} in dB"', page)) == 1
        assert f"Facts of {scene}" in page
    assert page.count("data:image/webp;base64,") == 3
    assert "Nothing is wrong." in page
    assert page.count('aria-label="Region ') == 2


def test_a_picture_shows_what_is_not_valid_in_blue(page):
    from PIL import Image  # comes with matplotlib

    data = re.search(r"data:image/webp;base64,([^\"]+)", page)[1]
    rgb = np.asarray(Image.open(BytesIO(b64decode(data))).convert("RGB")).astype(int)
    assert rgb.shape[:2] == (256, 256)
    assert np.abs(rgb[:, :30] - (59, 111, 182)).mean() < 6  # as quicklooks have them
    rest = rgb[:, 45:]
    assert (np.ptp(rest, axis=-1) < 20).mean() > 0.99, "what is valid is grey"
    assert 60 < rest.mean() < 200


def test_nothing_is_fetched_and_no_name_is_markup(page):
    assert page.count("<script") == 1
    assert page.count("alert(") == page.count("alert(&#39;1&#39;)") > 0
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"'(]?\s*(https?:|//|file:)", page)
    assert "default-src 'none'" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="#|aria-labelledby="|url\(#)([^")]+)', page):
        assert target in ids


def test_the_page_without_verification_says_so(store, tmp_path):
    made = sz.write_report(store, tmp_path / "r.html")
    assert "Not run for this report." in made.path.read_text(encoding="utf-8")


@given(st.lists(st.floats(-59, 99, width=32), min_size=1, max_size=60), st.floats(-40, 10), st.floats(1, 40))
def test_shares_are_those_of_the_pixels(values, low, span):
    pixels = np.array(values, np.float32)
    vmin, vmax = float(low), float(low + span)
    near = np.minimum(np.abs(pixels - vmin), np.abs(pixels - vmax)) < 0.003  # within a bin or two, who knows
    pixels = pixels[~near]
    both = np.append(pixels, [np.nan, -100.0]).astype(np.float32)
    bounds = BoundsEntry(vmin=-60, vmax=100, clip_vmin=vmin, clip_vmax=vmax)
    share = share_of(sz.Histogram.from_db(both), bounds)
    lit = len(pixels) + 1
    assert share.pixels == lit + 1
    assert share.valid == pytest.approx(lit / (lit + 1))
    assert share.below == pytest.approx(((pixels < vmin).sum() + 1) / lit)
    assert share.above == pytest.approx((pixels > vmax).sum() / lit)


def test_sizes_are_the_bytes_on_disk(store):
    total = sum(p.stat().st_size for p in store.root.rglob("*") if p.is_file())
    assert sum(sizes(store.place).values()) == total


@pytest.mark.parametrize("name", ["r.pdf", "r", "nowhere/r.html"])
def test_a_path_that_is_no_page_is_refused_before_anything_is_read(tmp_path, name):
    with pytest.raises(InvalidInputError, match=r"NAME\.html in a folder"):
        sz.write_report(tmp_path / "none.zarr", tmp_path / name)


def test_what_is_there_stays_where_a_page_cannot_be_made(store, tmp_path):
    place = tmp_path / "r.html"
    place.write_text("before")

    class StopError(Exception):
        pass

    def stop(progress):
        raise StopError

    with pytest.raises(StopError):
        sz.write_report(store, place, progress=stop)
    assert place.read_text() == "before"
    assert list(tmp_path.iterdir()) == [place]


def test_damage_of_a_scene_is_told_and_the_others_are_shown(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (sarzarr[plot])")
    store = store_at(tmp_path, PLACES[:2])
    shard = next((store.root / "scenes" / store.scenes[0]).rglob("c/*/*"))
    shard.write_bytes(shard.read_bytes()[:-9])
    made = sz.write_report(store.root, tmp_path / "r.html", verification=sz.verify(store.root))
    page = made.path.read_text(encoding="utf-8")
    assert len(made.damage) == 1
    assert store.scenes[0] in made.damage[0]
    assert page.count("data:image/webp") >= 1
    assert "1 findings" not in page
    assert "1 finding" in page


@given(st.integers(1, 100_000))
def test_pictures_have_their_share_of_twelve_megabytes(count):
    from sarzarr.export.report.pictures import FEWEST, PICTURES, bytes_each

    each = bytes_each(count)
    assert each == FEWEST or count * each * 4 / 3 <= PICTURES


@pytest.mark.parametrize("limit", [400, 1500, 6000])
def test_a_picture_of_noise_keeps_its_limit(limit):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (sarzarr[plot])")
    from sarzarr.export.report.pictures import _webp

    noise = np.random.default_rng(0).integers(0, 255, (448, 448, 1), np.uint8).repeat(3, axis=-1)
    assert len(_webp(noise, limit)) <= limit


@pytest.mark.slow
def test_a_wheel_has_the_template(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    if "No module named" in done.stderr or "BackendUnavailable" in done.stderr:
        pytest.skip("setuptools is not installed, and nothing is downloaded")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"sarzarr/export/report/templates/{n}" for n in ("report.html", "style.css", "table.js")} <= set(
        names
    )


PEAK = """
import sys
import sarzarr as sz
made = sz.write_report(sys.argv[1], sys.argv[2])
(peak,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak * 1024, made.size)
"""


def peak_and_size(store, page):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PEAK, str(store.root), str(page)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is Linux's account")
def test_a_thousand_scenes_stay_under_20_megabytes_and_memory_does_not_grow(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (sarzarr[plot])")
    from sarzarr.export.report.pictures import PICTURES

    said = {}
    for count in (15, 75):
        folder = tmp_path / str(count)
        folder.mkdir()
        places = [(15 + 0.1 * (i % 11), 48 + 0.1 * (i // 11)) for i in range(count)]
        store = store_at(folder, places, shape=(160, 160))
        page = folder / "r.html"
        peak, size = peak_and_size(store, page)
        text = re.sub(r"data:image/webp[^\"]+", "", page.read_text(encoding="utf-8"))
        said[count] = peak, size, len(text.encode())
    each = (said[75][2] - said[15][2]) / 60
    fixed = said[15][2] - 15 * each
    assert fixed + 1000 * each + PICTURES < 20e6
    assert said[75][0] - said[15][0] < 20e6, "sixty scenes more: their histograms alone would be 60 MB"
