"""The command line, as a user meets it."""

import subprocess
import sys

import pytest
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr.cli import main
from sarzarr.cli_output import parse_bytes


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
    assert "1 scenes, 1 arrays" in out
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
    ("arguments", "said"),
    [
        (("info", "nowhere.zarr"), "a sarzarr store was expected at 'nowhere.zarr'"),
        (("identify", "nowhere.tif"), "which is not there"),
        (("ingest", "nowhere.tif", "-o", "a.zarr"), "which is not there"),
        (("ingest", __file__, "-o", "a.zarr"), "expected a TIFF file"),
        (("ingest", "x.tif", "-o", "a.zarr", "--codec", "gzip"), "codec must be one of"),
        (("ingest", "x.tif", "-o", "a.zarr", "--shard", "100"), "multiple of the 256-pixel chunk"),
        (("ingest", "x.tif", "-o", "a.zarr", "--memory", "lots"), "a size such as 1GB"),
    ],
)
def test_a_mistake_ends_in_one_line_without_traceback(run, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 1
    assert err.startswith("sarzarr: ")
    assert said in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.iterdir())


def test_the_demo_does_the_whole_job_and_may_be_repeated(run, tmp_path):
    pytest.importorskip("matplotlib")
    for _ in range(2):
        code, out, _ = run("demo", "--folder", tmp_path / "stores", "--size", "768")
        assert code == 0
        assert "(8, 2, 256, 256) float32" in out
    assert (tmp_path / "stores" / "demo-quicklook.png").exists()


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


def test_sizes_as_people_write_them():
    assert parse_bytes("1GB") == parse_bytes("1 gb") == 1_000_000_000
    assert parse_bytes("800MiB") == 800_000_000
