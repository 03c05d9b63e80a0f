#!/usr/bin/env bash
# multiprocessing (CPython 3.11 to 3.13) passes a RawArray to a spawned process, unless the array is the first of its
# length and is made while the process object is being pickled, as one that __getstate__ makes on demand is: PicklingError
# the first time, and no error from then on. RawArray registers a reducer for its ctypes class as it is made, one class a
# length, and ForkingPickler copies the reducers when it is constructed, before any __getstate__ has run. A test that
# spawns twice, or has made an array of that length before, does not see it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/late.py" <<'PY'
import multiprocessing
import pickle
from multiprocessing import RawArray


class Counter:
    def __getstate__(self):
        return {"words": RawArray("q", 77)}


def child(counter):
    print("the child has", len(counter.words), "words")


if __name__ == "__main__":
    said = []
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=child, args=(Counter(),))
        try:
            process.start()
        except pickle.PicklingError as error:
            said.append(f"{type(error).__name__}: {error}")
        else:
            process.join()
            said.append("no error")
    print(*said, sep="\n")
    assert said[0].startswith("PicklingError: Can't pickle <class 'multiprocessing.sharedctypes.c_long_Array_77'>")
    assert said[1] == "no error"
PY
python3 "$folder/late.py"
