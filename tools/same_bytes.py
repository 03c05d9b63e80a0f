"""Show that two checkouts write the same stores.

    python tools/same_bytes.py BEFORE AFTER [DATA]

BEFORE and AFTER are checkouts of this project; DATA is a folder of rasters (those of the tests if left out). Each
writes the demo's scenes and every raster that it takes, with several options, in a process of its own. Prints a line
a store, and exits with 1 if one differs. What is compared is every file's name and bytes.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

OPTIONS = {
    "default": {},
    "float32": {"dtype": "float32"},
    "float16": {"dtype": "float16"},
    "percentile": {"bounds": "percentile"},
    "fixed": {"bounds": "fixed", "dtype": "float32"},
    "border": {"border": 3},
    "codec": {"codec": "blosc", "shard": 512},
    "chunks": {"shard": 0},
    "grid": {"crs": "EPSG:32633", "pixel_size": 25.0},
}
"""Options of `sarzarr.plan_ingest` by the name of the store that is made with them."""
CHILD = """
import sys, json, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import sarzarr as sz
files, out, options = json.loads(sys.argv[1])
try:
    plan = sz.plan_ingest([Path(f) for f in files], Path(out), **options)
    sz.ingest(plan)
    if not options:
        sz.make_split(out, val_fraction=0.3, seed=1)
except (sz.errors.SarzarrError if hasattr(sz, "errors") else Exception) as error:
    print(type(error).__name__)
"""


STAMP = re.compile(rb'"created_at": "[^"]*"')
"""The time in a version of a split: when it was made, and no more."""


def tree_hash(root: Path) -> str:
    """Return one value for every file below a folder: its name and its bytes, but for `STAMP`."""
    digest = sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(
            f"{path.relative_to(root)}\0".encode() + sha256(STAMP.sub(b"", path.read_bytes())).digest()
        )
    return digest.hexdigest()[:16]


def run(checkout: Path, code: str, *arguments: str) -> str:
    """Run code on the package of a checkout; return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def stores(demo: list[str], data: Path) -> Iterator[tuple[str, list[str], dict[str, object]]]:
    """Yield (name, files, options) of each store to make."""
    for name, options in OPTIONS.items():
        yield f"demo, {name}", demo, options
    for file in sorted(data.rglob("*.tif*")):
        if file.stat().st_size < 64 * 2**20 and "ship_chips" not in str(file) and "hollow" not in str(file):
            for name in ("default", "float32", "percentile"):
                yield f"{file.parent.name}/{file.name}, {name}", [str(file)], OPTIONS[name]


def main() -> int:
    """Compare; return the exit code."""
    import json

    before, after = (Path(argument).resolve() for argument in sys.argv[1:3])
    data = Path(sys.argv[3]) if len(sys.argv) > 3 else before / "../shared/data"
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        synthesise = (
            "import sys, sarzarr as sz\n"
            "for path in sz.write_synthetic_scenes(sys.argv[1], count=2, shape=(1024, 1280)): print(path)"
        )
        demo = run(before, synthesise, f"{folder}/raw").splitlines()
        for name, files, options in stores(demo, data):
            hashes = []
            for side in (before, after):
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    said = run(side, CHILD, json.dumps([files, f"{place}/s.zarr", options]))
                    hashes.append(f"{said} {tree_hash(Path(place))}")
            is_same = hashes[0] == hashes[1]
            differing += not is_same
            print(f"{'same' if is_same else 'DIFFERS'}  {hashes[1].strip()}  {name}", flush=True)
    print(f"{differing} differ")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
