"""The command line, as a user meets it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr.cli import main
from sarzarr.errors import Exit
from sarzarr.store.codecs import CODECS
from sarzarr.text import parse_bytes


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command line here and gives (exit code, output, errors)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sarzarr", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return stop.value.code or 0, out.out, out.err

    return call


@pytest.fixture
def scene(tmp_path):
    return write_band(tmp_path / "s1_20260101_vv.tif", speckle((600, 600)), tiles=256)


@pytest.mark.compat
def test_the_whole_way(run, scene, tmp_path):
    store = tmp_path / "a.zarr"
    known = ("--quantity", "sigma0", "--representation", "power")
    code, out, _ = run("ingest", scene, "-o", store, *known, "--dry-run")
    assert code == 0
    assert "s1_20260101: 600 x 600" in out
    assert "projected peak" in out
    assert not store.exists()
    code, out, err = run("ingest", scene, "-o", store, *known)
    assert code == 0
    assert "100 %" in err
    assert "1 scene, 1 array, " in out
    code, out, err = run("ingest", scene, "-o", store, *known, "-q")
    assert (code, out, err) == (0, "", "")
    code, out, _ = run("info", store)
    assert "patches/default: 4 (256 px, stride 256, edge drop)" in out
    assert "5 ragged ones" in out
    code, out, _ = run("bounds", store, "--method", "fixed", "--vmin", "-20", "--vmax", "0")
    assert "-20.00 to 0.00" in out
    assert sz.open_store(store).preprocessing_params == {"vmin": -20.0, "vmax": 0.0}
    code, out, _ = run("bounds", store)
    assert "fixed" in out
    code, out, _ = run("quicklook", store, "-o", tmp_path / "q.png")
    assert code == 0
    assert (tmp_path / "q.png").read_bytes().startswith(b"\x89PNG")


def test_identify_says_what_and_why(run, real_data):
    code, out, _ = run("identify", real_data / "s1_grd_amplitude" / "S1_IW_GRD_panama_700_amp_VV_VH.tif")
    assert code == 0
    assert "vv, vh: dn as amplitude" in out
    assert "because band 1 is named 'Amplitude_VV'" in out
    code, out, _ = run("identify", real_data / "s1_ifg_nodata_mismatch" / "20180106-20180130_ifg.tif")
    assert code == 1
    assert "refused: expected backscatter, got an interferometric phase" in out


@pytest.mark.parametrize(
    ("arguments", "said", "right"),
    [
        (("info", "nowhere.zarr"), "a sarzarr store was expected at 'nowhere.zarr'", Exit.NOTHING),
        (("identify", "nowhere.tif"), "which is not there", Exit.NOTHING),
        (("ingest", "nowhere.tif", "-o", "a.zarr"), "which is not there", Exit.NOTHING),
        (("import", "chips", "nowhere", "-o", "a.zarr"), "a folder of pictures was expected", Exit.NOTHING),
        (("ingest", __file__, "-o", "a.zarr"), "expected a TIFF file", Exit.NOTHING),
        (("ingest", "x.tif", "-o", "a.zarr", "--codec", "nonesuch"), "codec must be one of", Exit.USAGE),
        (
            ("ingest", "x.tif", "-o", "a.zarr", "--shard", "100"),
            "multiple of the 256-pixel chunk",
            Exit.USAGE,
        ),
        (("ingest", "x.tif", "-o", "a.zarr", "--memory", "lots"), "a size such as 1GB", Exit.USAGE),
    ],
)
def test_a_mistake_ends_in_one_line_without_traceback(run, tmp_path, monkeypatch, arguments, said, right):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == right
    assert err.startswith("sarzarr: ")
    assert said in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.iterdir())


KNOWN = ("--quantity", "sigma0", "--representation", "power")


@pytest.fixture
def store(scene, tmp_path):
    return sz.ingest(
        sz.plan_ingest(scene, tmp_path / "s.zarr", quantity="sigma0", representation="power")
    ).root


@pytest.mark.parametrize(
    ("arguments", "said", "right"),
    [
        (("ingest", "SCENE", "-o", "a.txt", *KNOWN), "'a.txt', which is a file", Exit.NOTHING),
        (("ingest", "SCENE", "-o", "a.txt/s.zarr", *KNOWN), "Not a directory", Exit.NOTHING),
        (("ingest", "SCENE", "-o", "/proc/s.zarr", *KNOWN), "got '/proc/s.zarr.ingest'", Exit.NOTHING),
        (("demo", "--folder", "a.txt"), "got 'a.txt'", Exit.NOTHING),
        (("copy", "s.zarr", "/proc/s.zarr"), "got '/proc/s.zarr.ingest'", Exit.NOTHING),
        (("quicklook", "s.zarr", "-o", "/proc/q.png"), "got '/proc/q.png'", Exit.NOTHING),
        (("quicklook", "s.zarr", "-o", "nowhere/q.png"), "got 'nowhere', which is not there", Exit.USAGE),
        (
            ("quicklook", "s.zarr", "-o", "q.foo"),
            "a picture such as NAME.png was expected, got 'q.foo'",
            Exit.USAGE,
        ),
        (("quicklook", "."), "a sarzarr store was expected at '.'", Exit.NOTHING),
    ],
)
def test_what_cannot_be_written_ends_in_one_line(
    run, scene, store, monkeypatch, tmp_path, arguments, said, right
):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a file")
    code, out, err = run(*(scene if a == "SCENE" else a for a in arguments))
    assert code == right
    assert said in err
    assert err.startswith("sarzarr: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


def test_a_traceback_is_for_those_who_ask_for_it(scene, tmp_path):
    (tmp_path / "a.txt").write_text("a file")
    command = [sys.executable, "-m", "sarzarr", "-v", "demo", "--folder", tmp_path / "a.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FileExistsError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("sarzarr: a place that can be read and written")


def test_more_is_said_by_this_package_alone(scene):
    command = [sys.executable, "-m", "sarzarr", "-v", "identify", scene]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "power as" in done.stdout
    assert done.stderr == ""


def test_a_picture_of_a_damaged_store_says_which_bytes(run, store):
    pytest.importorskip("matplotlib")
    shard = next(p for p in (store / "scenes" / "s1_20260101" / "vv" / "c").rglob("*") if p.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 3] ^= 0xFF
    shard.write_bytes(damaged)
    code, _, err = run("quicklook", store)
    assert code == Exit.DAMAGE
    assert err.startswith("sarzarr: expected a chunk whose CRC-32C matches")
    assert str(shard.relative_to(store)) in err
    assert err.count("\n") == 1


def test_a_picture_is_named_after_the_store_that_one_stands_in(run, store, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(store)
    code, _, _ = run("quicklook", ".")
    assert code == 0
    assert (store.parent / "s-quicklook.png").exists()


@pytest.mark.slow
def test_a_picture_that_does_not_show_everything_says_so(run, tmp_path):
    pytest.importorskip("matplotlib")
    files = [write_band(tmp_path / f"s{n}_vv.tif", speckle((256, 256), seed=n)) for n in range(25)]
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", representation="power")).root
    code, out, _ = run("quicklook", store)
    assert code == 0
    assert "It shows 24 of 25 arrays. Name scenes, or the next page, to see the others." in out
    code, out, _ = run("quicklook", store, "s1", "s24")
    assert "It shows" not in out


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_ends_in_one_line_that_says_how_to_go_on(tmp_path, workers):
    scene = write_band(tmp_path / "a_vv.tif", speckle((6144, 6144)), tiles=256)
    store = tmp_path / "s.zarr"
    command = [sys.executable, "-m", "sarzarr", "ingest", scene, "-o", store, "--workers", workers, *KNOWN]
    command += ["--codec", "zstd", "--border", "3", "-q"]
    going = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    began = time.monotonic()
    while not list(tmp_path.glob("s.zarr.ingest/a/receipts/*")):
        assert going.poll() is None, going.stderr.read()
        assert time.monotonic() - began < 60
        time.sleep(0.02)
    os.killpg(going.pid, signal.SIGINT)  # as a terminal does: to every process of the command
    _, err = going.communicate(timeout=60)
    assert going.returncode == 130
    assert "sarzarr: interrupted. Run the same command again: what is done is not redone." in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_cluster_says_nothing_of_itself(tmp_path, scene):
    command = [sys.executable, "-m", "sarzarr", "ingest", scene, "-o", tmp_path / "c.zarr", *KNOWN]
    done = subprocess.run(
        [*command, "--workers", "2", "-q"], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_number_of_workers_below_0_is_refused(run, scene, tmp_path):
    from sarzarr.tasks import cluster

    code, _, err = run("ingest", scene, "-o", tmp_path / "w.zarr", *KNOWN, "--workers", "-1")
    assert code == 2
    assert "--workers" in err
    with (
        pytest.raises(sz.errors.InvalidInputError, match="0 or more workers were expected, got -1"),
        cluster(workers=-1),
    ):
        pass


def test_what_gdal_says_of_a_header_is_not_shown(real_data):
    command = [sys.executable, "-m", "sarzarr", "identify", real_data / "s1_c2_snap" / "slc.tif"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "refused" in done.stdout
    assert done.stderr == ""


def test_a_message_ends_in_one_full_stop(run, tmp_path, scene):
    (tmp_path / "a.tif").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "b.tif").write_bytes(scene.read_bytes()[:200_000])
    for name in ("a.tif", "b.tif"):
        code, out, err = run("identify", tmp_path / name)
        assert code == 1
        assert "file" in out + err
        assert ".." not in out + err


@pytest.mark.slow
def test_the_demo_does_the_whole_job_and_may_be_repeated(run, tmp_path):
    pytest.importorskip("matplotlib")
    for size, batch in (("768", 8), ("768", 8), ("512", 8), ("256", 3)):
        code, out, _ = run("demo", "--folder", tmp_path / "stores", "--size", size)
        assert code == 0
        assert f"({batch}, 2, 256, 256) float32" in out
    assert (tmp_path / "stores" / "demo-quicklook.png").exists()


@pytest.mark.compat
def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "sys.argv = ['sarzarr', '--help']\n"
        "from sarzarr.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'xarray', 'dask', 'zarr', 'torch', 'rasterio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "identify" in done.stdout


@pytest.mark.compat
@pytest.mark.parametrize("command", ["ingest", "copy"])
def test_help_names_every_codec(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    *others, last = CODECS
    assert f"{', '.join(others)} or {last}" in run(command, "--help")[1]


def test_sizes_as_people_write_them():
    assert parse_bytes("1GB") == parse_bytes("1 gb") == 1_000_000_000
    assert parse_bytes("800MiB") == 800_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--vmin", "-30", "--vmax", "0"), "--method fixed was expected beside --vmin, got --method none"),
        (("--low", "5"), "--method percentile was expected beside --low, got --method none"),
        (("--method", "fixed", "--k", "2"), "--method sigma was expected beside --k, got --method fixed"),
        (("--group", "typo"), "groups among vv/sigma0 were expected, got typo"),
        (("--group", "typo", "--method", "fixed"), "groups among vv/sigma0 were expected, got typo"),
    ],
)
def test_options_of_bounds_that_would_do_nothing_are_refused(run, store, arguments, said):
    before = (store / "zarr.json").read_bytes()
    code, out, err = run("bounds", store, *arguments)
    assert (code, out) == (Exit.NOTHING if "typo" in arguments else Exit.USAGE, "")
    assert said in err
    assert (store / "zarr.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--vmin", "-30"), "--bounds fixed was expected beside --vmin, got --bounds stored"),
        (("--bounds", "fixed", "--high", "99"), "--bounds percentile was expected beside --high"),
        (("--bounds", "fixed", "--vmin", "5", "--vmax", "-25"), "vmin < vmax"),
        (("--bounds", "percentile", "--low", "99", "--high", "1"), "percentiles must be"),
        (("--bounds", "sigma", "--k", "-1"), "k must be a positive number"),
        (("--resampling", "cubic"), "a grid to resample onto was expected"),
        (("--exact",), "a grid to place pixels on was expected"),
    ],
)
def test_options_of_ingest_that_would_do_nothing_are_refused(run, scene, tmp_path, arguments, said):
    code, _, err = run("ingest", scene, "-o", tmp_path / "n.zarr", *KNOWN, *arguments, "--dry-run")
    assert code == Exit.USAGE
    assert said in err
    assert not (tmp_path / "n.zarr").exists()


def test_bounds_shows_the_groups_that_are_named(run, tmp_path):
    files = [write_band(tmp_path / f"a_{p}.tif", speckle((256, 256))) for p in ("vv", "vh")]
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", quantity="dn", representation="power")).root
    _, out, _ = run("bounds", store, "--group", "vh/dn-power")
    assert "vh/dn-power" in out
    assert "vv/dn" not in out


def test_remove_takes_all_of_the_named_scenes_or_none(run, tmp_path):
    files = [write_band(tmp_path / f"s{n}_vv.tif", speckle((256, 256), seed=n)) for n in range(3)]
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", representation="power")).root
    code, out, err = run("remove", store, "s1", "s7", "s2")
    assert (code, out) == (1, "")
    assert "scenes of s.zarr were expected, got s7, which it does not hold. Nothing was removed" in err
    assert sz.open_store(store).scenes == ("s0", "s1", "s2")
    code, _, _ = run("remove", store, "s1", "s1", "s2")
    assert code == 0
    assert sz.open_store(store).scenes == ("s0",)


def test_a_bench_of_no_time_says_what_it_takes(run, store):
    code, _, err = run("bench", store, "--seconds", "0")
    assert code == Exit.USAGE
    assert "seconds above 0 and below 3600 were expected, got 0." in err


def test_identify_gives_each_file_its_line(run, scene, tmp_path):
    (tmp_path / "text.tif").write_text("no TIFF")
    code, out, err = run("identify", tmp_path / "nowhere.tif", tmp_path / "text.tif", scene)
    assert code == Exit.PARTLY
    assert "s1_20260101_vv.tif\n" in out
    assert "vv: power as power" in out
    assert [line.split(":")[0] for line in err.splitlines()] == ["sarzarr", "sarzarr"]
    assert "nowhere.tif', which is not there" in err
    assert "expected a TIFF file, got 'text.tif'" in err
    code, out, err = run("identify", scene, scene.parent)
    assert code == Exit.PARTLY
    assert out.count("vv: power as power") == 1
    code, _, err = run("identify", tmp_path / "text.tif")
    assert code == Exit.NOTHING
    code, _, err = run("identify", scene, "--quantity", "sigma")
    assert (code, err.count("\n")) == (Exit.USAGE, 1)


def test_ingest_goes_on_without_what_is_refused(run, scene, tmp_path):
    (tmp_path / "text.tif").write_text("no TIFF")
    (tmp_path / "empty.tif").write_bytes(b"")
    arguments = ("ingest", tmp_path, "-o", tmp_path / "s.zarr", *KNOWN)
    code, _, err = run(*arguments, "--strict")
    assert code == Exit.NOTHING
    assert all(f"expected a TIFF file, got '{name}.tif'" in err for name in ("text", "empty"))
    assert not (tmp_path / "s.zarr").exists()
    code, out, err = run(*arguments, "--dry-run")
    assert code == Exit.PARTLY
    assert "text.tif: expected a TIFF file, got 'text.tif'" in out
    code, _, err = run(*arguments)
    assert code == Exit.PARTLY
    assert "sarzarr: 2 files refused, the others are in s.zarr:\n" in err
    assert all(f"{name}.tif: expected a TIFF file" in err for name in ("text", "empty"))
    assert sz.open_store(tmp_path / "s.zarr").scenes == ("s1_20260101",)
    code, out, err = run(*arguments, "-q")
    assert (code, out) == (Exit.PARTLY, "")
    assert err.count("\n") == 3
    scene.unlink()
    code, _, err = run(*arguments)
    assert code == Exit.NOTHING
    assert all(f"{name}.tif: expected a TIFF file" in err for name in ("text", "empty"))
