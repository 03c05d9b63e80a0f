"""Time and bytes by the number of scenes that a store has: adding one, opening, `info`, the tree, a second run.

    make bench-growth
    make bench-growth BENCH_ARGS="--scenes 10 1000 --before ../other-checkout"
    make bench-growth BENCH_ARGS="--folder /dev/shm/growth --scenes 10 10000"

A store of tiny scenes is made by `growth_stores.py` in memory where there is some, and brought to each number of
scenes; each is measured in a process of its own, the shortest of three in processor seconds. With ``--before`` the
same is done with the package of another checkout, on a store that it makes itself, of at most ``--before-most``
scenes, and `xr.open_datatree` is measured in turns. In a ``--folder`` that is named, stores and results stay: who
runs it again with other numbers goes on from there. Ratios are of most scenes to fewest.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve()
TREE, FILES, TIMES = 1600, 400, 3
SHOWN = {
    "add": "add one scene, s",
    "beside": "the same by that to 10",
    "reader": "open a reader, s",
    "info": "info, s",
    "tree": "open_tree and one scene, s",
    "remove": "remove a scene, s",
    "datatree": "xr.open_datatree, s",
    "root": "root document, kB",
    "again": "second run, ms a file",
}


def shortest(work, times=TIMES):
    """Return the processor seconds of the shortest run of ``work``, which is given the number of the run."""
    seconds = []
    for i in range(times):
        began = time.process_time()
        work(i)
        seconds.append(time.process_time() - began)
    return min(seconds)


def measured(folder, scenes):
    """Return what is measured on a store of so many scenes, in this process and with the package that it imports."""
    from growth_stores import KNOWN, grown, scene_file

    import sarzarr as sz
    from sarzarr.cli.output import summary

    files = folder / "one"
    files.mkdir(exist_ok=True)
    began = time.perf_counter()
    root, found = grown(folder / "store.zarr", scenes).root, {}
    print(f"{scenes} scenes, made in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    warm = root if scenes <= 10 else grown(folder / "warm.zarr", 10).root
    paths = [scene_file(files, 50_000 + 10 * scenes + i) for i in range(2 * TIMES)]
    added = {warm: [], root: []}
    for i, path in enumerate(paths):  # in turns
        store = (warm, root)[i % 2]
        work = partial(lambda file, at, _: sz.ingest(sz.plan_ingest(file, at, **KNOWN)), path, store)
        added[store].append(shortest(work, 1))
    for store in (warm, root):
        found["root"] = (store / "zarr.json").stat().st_size / 1e3
        found["reader"] = shortest(lambda _, at=store: sz.PatchReader(at))
        found["info"] = shortest(lambda _, at=store: summary(sz.open_store(at)))
        if hasattr(sz, "open_tree"):
            found["tree"] = shortest(lambda _, at=store: next(iter(sz.open_tree(at).values())))
    found["add"], found["beside"] = min(added[root]), min(added[root]) / min(added[warm])
    names = [path.name.partition("_")[0] for path in paths]
    new = {
        store: [scene for scene in sz.open_store(store).scenes if scene.partition("_")[0] in names]
        for store in added
    }
    found["remove"] = shortest(lambda i: sz.remove_scene(root, new[root][i]))
    sz.remove_scene(warm, [scene for scene in new[warm] if scene in sz.open_store(warm).scenes])
    return found


def datatree(folder):
    """Return the processor seconds of opening all of a store of `TREE` scenes with xarray."""
    import xarray as xr
    from growth_stores import grown

    xr.open_datatree(grown(folder / "warm.zarr", 10).root, engine="zarr", chunks={}).close()
    root = grown(folder / "tree.zarr", TREE).root
    return shortest(lambda _: xr.open_datatree(root, engine="zarr", chunks={}).close(), times=1)


def again(folder):
    """Return the milliseconds a file of an ingest of files that are all known."""
    from growth_stores import KNOWN, scene_file

    import sarzarr as sz

    files, root = folder / "files", folder / "again.zarr"
    if not files.exists():
        files.mkdir()
        for number in range(FILES):
            scene_file(files, number)
        sz.ingest(sz.plan_ingest(files, root, **KNOWN))
        time.sleep(3)  # what changed a moment ago is not remembered
        sz.ingest(sz.plan_ingest(files, root, **KNOWN))
    return {"again": shortest(lambda _: sz.ingest(sz.plan_ingest(files, root, **KNOWN))) / FILES * 1e3}


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


def measure_all(folder, given):
    """Measure what is asked for in a folder, where results of runs before may be; return all results by checkout."""
    results = folder / "results.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    checkouts = {"now": (HERE.parents[1], max(given.scenes))}
    if given.before is not None:
        checkouts["before"] = given.before, given.before_most

    def keep(name, count, more):
        found.setdefault(name, {}).setdefault(str(count), {}).update(more)
        results.write_text(json.dumps(found, indent=1))
        print(f"{name}: {count} scenes: {more}", file=sys.stderr)

    for name, (checkout, most) in checkouts.items():
        own = folder / name
        own.mkdir(exist_ok=True)
        for count in [n for n in sorted(given.scenes) if n <= most]:
            keep(name, count, run(checkout.resolve(), own, count))
            if count == min(given.scenes):
                keep(name, count, run(checkout.resolve(), own, "again"))
    seconds = {name: [] for name in checkouts}
    for _ in range(2 if TREE in given.scenes else 0):
        for name, (checkout, _) in checkouts.items():
            seconds[name].append(run(checkout.resolve(), folder / name, "datatree"))
            keep(name, TREE, {"datatree": min(seconds[name])})
    return {name: {int(count): row for count, row in rows.items()} for name, rows in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, nargs="+", default=[10, 100, 1000, TREE, 10_000])
    parser.add_argument("--folder", type=Path, help="where stores are made, and stay")
    parser.add_argument("--before", type=Path, help="another checkout, which is measured beside")
    parser.add_argument("--before-most", type=int, default=TREE, help="scenes of its store, at most")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        sys.path.insert(0, str(HERE.parent))
        ways = {"again": again, "datatree": datatree}
        way = ways.get(given.measure)
        print(json.dumps(measured(given.folder, int(given.measure)) if way is None else way(given.folder)))
        return
    memory = Path("/dev/shm")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="growth-", dir=memory if memory.is_dir() else None))
    folder.mkdir(exist_ok=True)
    try:
        found = measure_all(folder, given)
        table(found["now"], found.get("before"), sorted(found["now"]))
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
