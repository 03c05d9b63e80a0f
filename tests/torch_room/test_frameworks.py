"""Training frameworks, with real processes: the examples of benchmarks/frameworks, run on a small machine."""

import sys

import pytest

pytest.importorskip("torch")
from frameworks_exact import store_of_examples
from run_frameworks import HERE, OTHERS, PINNED, run_example

LIGHTNING = (
    "module-ddp-2",
    "module-ddp_spawn-0",
    "module-ddp_notebook-0",
    "StatefulDataLoader-ddp_notebook-2",
)
PACKAGES = {"fabric": "lightning", "smp": "segmentation_models_pytorch"}
REFUSED = {"accelerate": 2, "transformers": 2, "monai": 2}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), [*(("lightning", (of,)) for of in LIGHTNING),
                                                 *((name, ()) for name in (*PINNED[1:], *OTHERS))])  # fmt: skip
def test_each_patch_comes_once_or_an_error_says_what_to_write(name, arguments):
    pytest.importorskip(
        PACKAGES.get(name, name), reason=f"{name} is not installed; `make frameworks` installs it"
    )
    rows = run_example(name, sys.executable, store_of_examples(), *arguments)["rows"]
    refused = [row["refused"] for row in rows if row["refused"]]
    assert len(refused) == REFUSED.get(name, 0), refused
    assert all("PatchLoader" in text or text == "KeyError: 0" for text in refused)
    assert {(row["lost"], row["repeated"]) for row in rows if not row["refused"]} == {(0, 0)}, rows


def test_each_example_stands_in_the_table():
    assert sorted(path.stem for path in HERE.glob("with_*.py")) == sorted(
        f"with_{n}" for n in (*PINNED, *OTHERS)
    )
