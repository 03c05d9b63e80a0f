"""``make fuzz``: mutated GeoTIFFs, each opened and ingested twice in forked children with limits.

Each must become a scene or a clear error, alike whatever unwritten memory holds; the scene that was in the store
stays as it was. What is not so is kept in a folder, is named, and the command ends with 1.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from conftest import speckle, tree_hash
from limited import forked, import_what_it_imports
from mutations import made_by_hand, make_seeds, mutated, structures
from tiffs import write

import sarzarr as sz
from sarzarr.errors import SarzarrError
from sarzarr.rasters import close_rasters
from sarzarr.scenes.probe import probe_file

SAID = {"representation": "power", "quantity": "sigma0"}
WHOLE = 2**22
"""Pixels up to which a scene is read whole; of a larger one, four windows."""


def digest_of(scene):
    """Return a digest of a scene's pixels, and of its attributes."""
    digest = hashlib.sha256(repr(sorted((str(k), repr(v)) for k, v in scene.attrs.items())).encode())
    rows, cols = scene.sizes["y"], scene.sizes["x"]
    windows = [(slice(None), slice(None))]
    if rows * cols > WHOLE:
        windows = [
            (slice(r, r + 16), slice(c, c + 16))
            for r in (0, rows - min(rows, 16))
            for c in (0, cols - min(cols, 16))
        ]
    for name in list(scene.data_vars)[:8]:
        for down, across in windows:
            values = scene[name].isel(y=down, x=across).compute(scheduler="sync").values
            digest.update(np.ascontiguousarray(np.nan_to_num(values)).tobytes())
    return digest.hexdigest()


def opened(path):
    """Return a digest of all that a file says and holds; errors of sarzarr's own are part of it."""
    warnings.simplefilter("error")
    parts = []
    for step in (lambda: repr(probe_file(path)), lambda: digest_of(sz.open_scene(path, **SAID))):
        try:
            parts.append(hashlib.sha256(step().encode()).hexdigest())
        except SarzarrError as error:
            parts.append(str(error))
    return parts


def ingested(path, store):
    """Ingest a file into a copy of a store; return whether it came in. All else stays as it was."""
    warnings.simplefilter("error")
    folder = Path(path).parent / f"{os.getpid()}"
    copy = Path(shutil.copytree(store, folder / "s.zarr"))
    before = {name: tree_hash(copy / name) for name in ("scenes/good", "histograms/good", "catalog")}
    try:
        sz.ingest(sz.plan_ingest([path], copy, **SAID))
        came = True
    except SarzarrError:
        came = False
    after = {name: tree_hash(copy / name) for name in before}
    if came:
        del before["catalog"], after["catalog"]
    if before != after:
        raise AssertionError(f"{before} became {after}")
    if [scene for scene in sz.open_store(copy).scenes if scene != "good"] and not came:
        raise AssertionError("a scene of an ingest that failed")
    for scene in sz.open_store(copy).scenes:
        sz.open_store(copy).power(scene).compute(scheduler="sync")
    shutil.rmtree(folder)
    return came


def tried(path, store, *, ingest=True):
    """Return (kind of outcome, what is wrong; empty where nothing is) of a file."""
    outcomes = [forked(opened, path, byte=byte) for byte in (0x5A, 0xA5)]
    for outcome in outcomes:
        if outcome.kind != "done":
            return outcome.kind, f"{outcome.kind}: {outcome.said}"
    if outcomes[0] != outcomes[1]:
        return "unwritten", f"two runs differ: {outcomes[0].said} and {outcomes[1].said}"
    is_scene = len(outcomes[0].said[1]) == 64 and " " not in outcomes[0].said[1]
    if is_scene and ingest:
        outcome = forked(ingested, path, store, byte=0x5A)
        if outcome.kind != "done":
            return outcome.kind, f"ingest, {outcome.kind}: {outcome.said}"
        return ("scene" if outcome.said else "not ingested"), ""
    return ("scene" if is_scene else "refused"), ""


def make_store(folder):
    """Return a store of one good scene."""
    path = write(folder / "good_sigma0_vv.tif", speckle((64, 64)))
    return sz.ingest(sz.plan_ingest([path], folder / "good.zarr", id="good", **SAID)).root


def cases(options, seeds):
    """Yield (name, bytes) of each file that is tried."""
    if options.by_hand:
        yield from ((name, data) for name, data, _ in made_by_hand(seeds))
        return
    if options.cuts:
        cuts = [(name, data, at) for name, data in seeds.items() for at in structures(data)[:-1]]
        every = max(len(cuts) // options.count, 1) if options.count else 1
        yield from ((f"{name}-cut-{at}", data[:at]) for name, data, at in cuts[::every])
        return
    count = options.count or (10**9 if options.seconds else 5000)
    for number in range(options.first, options.first + count):
        name, data = mutated(seeds, options.seed, number)
        yield f"{name}-{options.seed}-{number}", data


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--count", type=int, default=0, help="mutations; 0: 5,000, or as many as the seconds allow"
    )
    parser.add_argument("--seconds", type=float, default=0, help="seconds; 0: until the count is reached")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument(
        "--cuts", action="store_true", help="in the place of mutations, each seed cut at each structure"
    )
    parser.add_argument("--by-hand", action="store_true", help="in the place of mutations, files that lie")
    parser.add_argument("--ingest-every", type=int, default=1, help="of so many scenes one is ingested, too")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="folder of what is found")
    options = parser.parse_args()
    until = time.monotonic() + (options.seconds or 1e9)
    kinds, found, by_name = Counter(), [], {}
    with tempfile.TemporaryDirectory(prefix="sarzarr-fuzz-") as text:
        folder = Path(text)
        seeds, store = make_seeds(folder / "seeds"), make_store(folder)
        close_rasters()
        for function, *more in ((opened,), (ingested, store)):
            import_what_it_imports(function, folder / "good_sigma0_vv.tif", *more)
        for number, (name, data) in enumerate(cases(options, seeds)):
            if time.monotonic() > until:
                break
            work = folder / "work"
            work.mkdir()
            path = work / "hostile_sigma0_vv.tif"
            path.write_bytes(data)
            kind, wrong = tried(path, store, ingest=number % options.ingest_every == 0)
            kinds[kind] += 1
            by_name[name] = kind
            if wrong:
                options.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, options.keep / f"{name.replace(' ', '-')}.tif")
                found.append(f"{name}: {wrong}")
                print(found[-1], file=sys.stderr, flush=True)
            shutil.rmtree(work)
    said = {"tried": sum(kinds.values()), **kinds, "found": len(found)}
    print(json.dumps(said | ({"by_name": by_name} if options.by_hand else {})))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
