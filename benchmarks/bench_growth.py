"""Time and bytes by the number of scenes that a store has: adding one, opening, `info`, the tree, a second run.

    make bench-growth
    make bench-growth BENCH_ARGS="--scenes 10 1000 --before ../other-checkout"

Stores of tiny scenes are made by `growth_stores.py` in a folder, in memory where there is one. A measurement is the
shortest of three in a process of its own; with ``--before`` the same is done with the package of another checkout, on
stores that it makes itself, of at most ``--before-most`` scenes. Ratios are of most scenes to fewest.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
TREE, FILES, TIMES = 1600, 200, 3
SHOWN = {
    "add": "add one scene, s",
    "reader": "open a reader, s",
    "info": "info, s",
    "tree": "open_tree and one scene, s",
    "datatree": "xr.open_datatree, s",
    "root": "root document, kB",
    "again": "second run, ms a file",
}


def shortest(work, times=TIMES):
    """Return the seconds of the shortest run of ``work``, which is given the number of the run."""
    seconds = []
    for i in range(times):
        began = time.perf_counter()
        work(i)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measured(folder, scenes):
    """Return what is measured on a store of so many scenes, in this process and with the package that it imports."""
    import xarray as xr
    from growth_stores import KNOWN, grown, scene_file

    import sarzarr as sz
    from sarzarr.cli.output import summary

    root, files = folder / f"{scenes}.zarr", folder / "one"
    files.mkdir(exist_ok=True)
    found = {}
    if scenes == TREE:
        grown(root, scenes)
        xr.open_datatree(grown(folder / "10.zarr", 10).root, engine="zarr", chunks={}).close()
        found["datatree"] = shortest(
            lambda _: xr.open_datatree(root, engine="zarr", chunks={}).close(), times=1
        )
    grown(root, scenes)
    warm = grown(folder / "warm.zarr", 10).root
    paths = [scene_file(files, 50_000 + i) for i in range(2 * TIMES)]
    for path in paths[TIMES:]:
        sz.ingest(sz.plan_ingest(path, warm, **KNOWN))
    for store in (warm, root):
        found["root"] = (store / "zarr.json").stat().st_size / 1e3
        found["reader"] = shortest(lambda _, at=store: sz.PatchReader(at))
        found["info"] = shortest(lambda _, at=store: summary(sz.open_store(at)))
        if hasattr(sz, "open_tree"):
            found["tree"] = shortest(lambda _, at=store: next(iter(sz.open_tree(at).values())))
    found["add"] = shortest(lambda i: sz.ingest(sz.plan_ingest(paths[i], root, **KNOWN)))
    return found


def again(folder):
    """Return the milliseconds a file of an ingest of files that are all known."""
    from growth_stores import KNOWN, scene_file

    import sarzarr as sz

    files, root = folder / "files", folder / "again.zarr"
    files.mkdir()
    for number in range(FILES):
        scene_file(files, number)
    time.sleep(3)  # what changed a moment ago is not remembered
    sz.ingest(sz.plan_ingest(files, root, **KNOWN))
    seconds = shortest(lambda _: sz.ingest(sz.plan_ingest(files, root, **KNOWN)))
    return {"again": seconds / FILES * 1e3}


def run(checkout, folder, what):
    """Return what another process measures with the package of a checkout."""
    paths = os.pathsep.join(map(str, (checkout, HERE.parent)))
    env = {**os.environ, "PYTHONPATH": paths, "SARZARR_CACHE": str(folder / "cache")}
    command = [sys.executable, str(HERE), "--measure", str(what), "--folder", str(folder)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
    return json.loads(done.stdout.splitlines()[-1])


def table(found, before, counts):
    """Print the measurements, a row each, and return nothing."""
    head = "".join(f"{n:>10}" for n in counts)
    print(
        f"{'scenes':<28}{head}{'ratio':>8}" + ("".join(f"{f'{n} b.':>10}" for n in before) if before else "")
    )
    for name, shown in SHOWN.items():
        mine = {n: found[n][name] for n in counts if name in found[n]}
        if not mine:
            continue
        cells = "".join(f"{mine[n]:>10.3f}" if n in mine else f"{'':>10}" for n in counts)
        ratio = f"{mine[max(mine)] / mine[min(mine)]:>8.2f}" if len(mine) > 1 else f"{'':>8}"
        others = [before[n].get(name) for n in before] if before else []
        print(
            f"{shown:<28}{cells}{ratio}"
            + "".join(f"{v:>10.3f}" if v is not None else f"{'':>10}" for v in others)
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, nargs="+", default=[10, 100, 1000, TREE, 10_000])
    parser.add_argument(
        "--folder", type=Path, help="where stores are made; memory where there is some, by default"
    )
    parser.add_argument("--before", type=Path, help="another checkout, which is measured beside")
    parser.add_argument("--before-most", type=int, default=TREE, help="scenes of its stores, at most")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        sys.path.insert(0, str(HERE.parent))
        made = again(given.folder) if given.measure == "again" else measured(given.folder, int(given.measure))
        print(json.dumps(made))
        return
    memory = Path("/dev/shm")
    folder = Path(
        tempfile.mkdtemp(prefix="growth-", dir=given.folder or (memory if memory.is_dir() else None))
    )
    try:
        found, before = {}, {}
        for checkout, into, most in (
            (HERE.parents[1], found, max(given.scenes)),
            (given.before, before, given.before_most),
        ):
            if checkout is None:
                continue
            for count in [n for n in sorted(given.scenes) if n <= most]:
                own = folder / f"{len(into)}-{into is before}"
                own.mkdir()
                into[count] = run(checkout.resolve(), own, count)
                if count == min(given.scenes):
                    into[count] |= run(checkout.resolve(), own, "again")
                shutil.rmtree(own)
                print(f"{checkout.name}: {count} scenes: {into[count]}", file=sys.stderr)
        table(found, before, sorted(given.scenes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
