"""Commands about splits."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer import Argument, Option, echo
from typer.core import TyperGroup

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.cli.app import StoreArgument
from sarzarr.cli.collections import chip_split_text
from sarzarr.cli.output import taken_by_default
from sarzarr.errors import InvalidInputError
from sarzarr.text import counted

if TYPE_CHECKING:
    from sarzarr.arrays import Array
    from sarzarr.store.split_table import Split


class _VerbFirst(TyperGroup):
    """Commands on a store: ``split create STORE``, and as well ``split STORE create``, as it was once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb first."""
        if len(args) > 1 and args[0] not in self.commands and args[1] in self.commands:
            args = [args[1], args[0], *args[2:]]
        return super().parse_args(ctx, args)


split_app = typer.Typer(
    cls=_VerbFirst,
    help="Divide a store's ground into train, validation and test; no ground is on two sides.",
    no_args_is_help=True,
)
WIDTHS: Final = {"scene": 20, "place": 12}
"""Least characters of the columns that `show` lists scenes in."""
FAR_BELOW: Final = 0.5
"""Share of the validation asked for below which it is worth a word."""
BLOCK_HELP: Final = "Side of a block: 10km, 500m; auto: 10km, or what few scenes or large cells need."
PIXEL_BLOCK_HELP: Final = "Side of a block in pixels, where scenes have no place in the world; 1024 or less."
FIXED_HELP: Final = "Ground that arrives later is training, or held back."
FOLDS_HELP: Final = (
    "Make so many versions, each fold of the ground being the validation of one; in the place of --val."
)
SITE_HELP: Final = (
    "SCENE=NAME, for scenes without a place in the world; the scene may be a pattern such as '2019*'. Scenes that "
    "show the same ground have the same name. May be repeated."
)
COLLECTION_HELP: Final = "A collection of chips, in the place of scenes: whole chips are on one side."
BALANCE_HELP: Final = (
    "Labels on chips, or a column, whose classes each side has in like shares; with --collection."
)
GROUP_HELP: Final = (
    "A regular expression: chips whose names agree in what it finds stay together; with --collection."
)
SAMPLES_HELP: Final = "A set of samples that `import npy` made, in the place of scenes."
CollectionOption = Annotated[str | None, Option("--collection", help=COLLECTION_HELP, show_default=False)]
SiteOption = Annotated[list[str] | None, Option("--site", help=SITE_HELP)]
NotesOption = Annotated[str, Option(help="Kept with the version.")]
VersionArgument = Annotated[str | None, Argument(help="v1, v2, ...; the newest if left out.")]
By = StrEnum("By", ["ground", "scene", "site"])
"""Units that a split draws."""


def parse_sites(given: list[str] | None) -> dict[str, str]:
    """Return names of sites by pattern.

    >>> parse_sites(["2019*=lake", "x=harbour"])
    {'2019*': 'lake', 'x': 'harbour'}
    """
    out = {}
    for text in given or ():
        pattern, equals, name = text.rpartition("=")
        if not (pattern and equals and name):
            raise InvalidInputError(f"SCENE=NAME was expected, got {text!r}. Say --site 'lake_2019*=lake'.")
        out[pattern] = name
    return out


@split_app.command()
def create(
    store: StoreArgument,
    val: Annotated[float, Option(help="Share of the blocks that is validation.")] = 0.1,
    folds: Annotated[int | None, Option(min=2, help=FOLDS_HELP, show_default=False)] = None,
    test: Annotated[float, Option(help="Share of them that is test.")] = 0.0,
    seed: Annotated[int, Option(help="Another seed is another split.")] = 42,
    block: Annotated[str, Option(help=BLOCK_HELP)] = "auto",
    pixel_block: Annotated[int | None, Option(help=PIXEL_BLOCK_HELP, show_default=False)] = None,
    by: Annotated[By, Option(help="Draw blocks of ground, whole scenes or whole sites.")] = By.ground,
    guard: Annotated[str | None, Option(help="Margin about a cell; two pixels if left out.")] = None,
    site: SiteOption = None,
    fixed_val: Annotated[bool, Option("--fixed-val", help=FIXED_HELP)] = False,
    fresh: Annotated[bool, Option("--fresh", help="Begin anew beside the versions there are.")] = False,
    notes: NotesOption = "",
    samples: Annotated[str | None, Option(help=SAMPLES_HELP, show_default=False)] = None,
    collection: CollectionOption = None,
    balance: Annotated[str | None, Option(help=BALANCE_HELP, show_default=False)] = None,
    group_by: Annotated[str | None, Option(help=GROUP_HELP, show_default=False)] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the split and write nothing.")] = False,
) -> None:
    """Make a split by ground, check that it leaks nothing, and write it as a new version."""
    from sarzarr.splits.make import plan_folds, plan_split

    if collection is not None:
        if site or fixed_val or str(by) != "ground" or guard is not None or block != "auto" or samples:
            raise InvalidInputError(
                "--val, --test, --seed, --folds, --balance, --group-by, --fresh and --notes were expected beside "
                "--collection, got others. Leave them out."
            )
        _create_chip_split(
            store, collection, val_fraction=val, test_fraction=test, seed=seed, folds=folds,
            balance=balance, group_by=group_by, notes=notes, fresh=fresh, dry_run=dry_run,
        )  # fmt: skip
        return
    if balance is not None or group_by is not None:
        raise InvalidInputError("--balance and --group-by are of chips, got no --collection. Name it.")
    if samples is not None:
        if dry_run or site or test or fixed_val or folds or str(by) != "ground" or guard is not None:
            raise InvalidInputError(
                "--val, --seed, --fresh and --notes were expected beside --samples, got others. Leave them out."
            )
        manager = sz.SplitManager(store)
        number = manager.create_initial_split(samples, val, seed, force=fresh, notes=notes)
        of_samples = manager.read(samples, number)
        counts = of_samples.document() | {"held": len(of_samples.held_back_samples)}
        echo(
            f"{store.name}, samples/{samples}, v{number}: {counts['train_count']} train, {counts['val_count']} val, "
            f"{counts['held']} held back, since they share pixels with validation"
        )
        return
    recipe: dict[str, Any] = {
        "val_fraction": val, "test_fraction": test, "seed": seed, "block": block, "by": str(by), "guard": guard,
        "pixel_block": pixel_block, "fixed_val": fixed_val, "sites": parse_sites(site), "notes": notes,
    }  # fmt: skip
    if folds is None:
        made = [plan_split(store, **recipe) if dry_run else sz.make_split(store, fresh=fresh, **recipe)]
    elif dry_run:
        made = [*plan_folds(store, folds, **recipe)]
    else:
        made = [*sz.make_split(store, folds=folds, fresh=fresh, **recipe)]
    opened = sz.open_store(store)
    echo(
        "\n".join(split_text(opened, split) for split in made) + ("\nnothing was written" if dry_run else "")
    )


@split_app.command()
def extend(
    store: StoreArgument,
    site: SiteOption = None,
    notes: NotesOption = "",
    collection: CollectionOption = None,
) -> None:
    """Write a version that knows every scene, or chip; what is known stays as it is."""
    from sarzarr.splits.versions import get_split

    if collection is not None:
        from sarzarr.splits.chips.make import extend_chip_split

        extended = extend_chip_split(store, collection, notes=notes)
        echo(chip_split_text(sz.open_collection(store, collection), extended))
        return

    before = get_split(store)
    split = sz.extend_split(store, sites=parse_sites(site), notes=notes)
    echo("nothing is pending" if split.version == before.version else split_text(sz.open_store(store), split))


@split_app.command("list")
def list_(store: StoreArgument, collection: CollectionOption = None) -> None:
    """List the versions, oldest first."""
    from sarzarr.splits.versions import list_splits

    if collection is not None:
        from sarzarr.store.chip_splits import chip_split_versions, read_chip_split

        made = sz.open_collection(store, collection)
        for number in chip_split_versions(made):
            echo(chip_split_text(made, read_chip_split(made, number)))
        return

    splits = list_splits(store)
    if not splits:
        echo("no split yet: make one with `sarzarr split create STORE`")
        return
    names = f"{'by':<8}{'block':<16}{'seed':>6}{'scenes':>8}{'val':>7}{'held':>7}  notes"
    echo(f"{'':<5}{'parent':<8}{'made':<22}{names}")
    for s in splits:
        parent = f"v{s.parent}" if s.parent else "-"
        fold = "" if s.recipe.fold is None else f"fold {s.recipe.fold} of {s.recipe.folds} "
        block = ", ".join(s.blocks) or "-"
        echo(
            f"{s.name:<5}{parent:<8}{s.created_at:<22}{s.recipe.by:<8}{block:<16}{s.recipe.seed:>6}{len(s.scenes):>8}"
            f"{s.val_ratio:>7.1%}{s.held_back_share:>7.1%}  {fold}{s.notes}"
        )


@split_app.command()
def show(
    store: StoreArgument,
    version: VersionArgument = None,
    png: Annotated[Path | None, Option(help="Draw footprints and blocks into this picture.")] = None,
    collection: CollectionOption = None,
) -> None:
    """Show what a version says; with --png, draw it."""
    from sarzarr.splits.versions import get_split

    if collection is not None:
        from sarzarr.store.chip_splits import read_chip_split

        made = sz.open_collection(store, collection)
        echo(chip_split_text(made, read_chip_split(made, _number(version))))
        return

    split = get_split(store, _number(version))
    echo(split_text(sz.open_store(store), split))
    wide, far = (max([most, *(len(getattr(s, k)) for s in split.scenes)]) for k, most in WIDTHS.items())
    for s in split.scenes:
        sides = zip(("train", "val", "test", "held"), (1, 2, 3, 0), strict=True)
        counts = "".join(f"{name:>7} {int((s.codes == code).sum()):>5}" for name, code in sides)
        echo(f"  {s.scene:<{wide}}  {s.place:<{far}}{counts}")
    if png is not None:
        from sarzarr.export.pictures.split_picture import write_split_picture

        echo(f"wrote {write_split_picture(sz.open_store(store), split, png)}")


@split_app.command("pending")
def pending_scenes(store: StoreArgument) -> None:
    """List the scenes that the newest version does not know."""
    from sarzarr.splits.make import pending

    waiting = pending(store)
    meanings = {"new": "", "changed": ", replaced on another grid", "gone": ", no longer in the store"}
    lines = [f"{name:<9}{s}{meaning}" for name, meaning in meanings.items() for s in getattr(waiting, name)]
    echo("\n".join(lines) or "nothing is pending")


@split_app.command("check")
def check_version(
    store: StoreArgument,
    version: VersionArgument = None,
    samples: Annotated[str | None, Option(help=SAMPLES_HELP, show_default=False)] = None,
    collection: CollectionOption = None,
) -> None:
    """Check once more that a version shares no ground between its sides."""
    from sarzarr.splits.versions import get_split

    if collection is not None:
        from sarzarr.splits.chips.make import check_chip_split

        checked = check_chip_split(store, collection, _number(version))
        echo(f"collections/{collection}, {checked.name}: no ground is on two sides")
        return
    if samples is not None:
        of_samples = sz.SplitManager(store).read(samples, _number(version))
        sz.check_split(store, of_samples, samples=samples)
        echo(f"samples/{samples}, v{of_samples.version}: no product and no pixels are on two sides")
        return
    split = get_split(store, _number(version))
    sz.check_split(store, split)
    echo(f"{split.name}: no ground is on two sides")


@split_app.command()
def export(
    store: StoreArgument,
    output: Annotated[Path, Argument(help="The JSON document.")],
    version: Annotated[str | None, Option(help="v1, v2, ...; the newest if left out.")] = None,
) -> None:
    """Write a version as a JSON document."""
    echo(f"wrote {sz.export_split(store, output, _number(version))}")


@split_app.command("import")
def import_(store: StoreArgument, document: Annotated[Path, Argument(help="What `export` wrote.")]) -> None:
    """Take in a version that was exported, under its own number."""
    echo(split_text(sz.open_store(store), sz.import_split(store, document)))


def _number(version: str | None) -> int | None:
    if version is None:
        return None
    digits = version.removeprefix("v")
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidInputError(
            f"a version such as v2 was expected, got {version!r}. `sarzarr split list STORE` lists them."
        )
    return int(digits)


def split_text(store: "sz.Store", split: "Split") -> str:
    """Return a split in a few lines: its recipe, its cells and patches on each side, and shares in percent."""
    r, counts = split.recipe, split.counts
    fixed = ", validation fixed" if r.fixed_val else ""
    blocks = f", blocks of {' and '.join(split.blocks)}" if split.blocks else ""
    drawn = f" ({r.drawn:.0%} of the blocks drawn)" if r.drawn else ""
    parent = f", extends v{split.parent}" if split.parent else ""
    parent += "" if r.fold is None else f": fold {r.fold} of {r.folds}"
    sides = f"{counts['train']} train, {counts['val']} val, {counts['test']} test, {counts['held_back']} held back"
    cells = counted(sum(counts.values()), "cell")
    lines = [
        f"{store.place.name}, split {split.name}{parent}",
        f"  by {r.by}{blocks}, seed {r.seed}, {r.val_fraction:.0%} asked for{drawn}{fixed}",
        f"  {counted(len(split.scenes), 'scene')}, {cells} of {cv.CELL} x {cv.CELL}: {sides}",
        f"  validation is {split.val_ratio:.1%} of what is used, {split.held_back_share:.1%} of all is held back",
    ]
    if split.val_ratio < FAR_BELOW * r.val_fraction:
        remedy = "larger ones lose less at their edges"
        lines.append(f"  less than was asked for: its blocks are small for these cells; {remedy}")
    for index in store.patch_indices:
        taken, limits = taken_by_default(store, index)
        lines.append(f"  patches/{index}: {_patches_text(store, split, index, taken)}")
    if store.patch_indices:
        lines.append(f"  in brackets: what readers take by default, {limits}")
    return "\n".join(lines)


def _patches_text(store: "sz.Store", split: "Split", index: str, taken: "Array") -> str:
    """Return how many patches of an index are on each side, and in brackets how many of them readers take."""
    import numpy as np

    from sarzarr.splits.versions import patches_of

    table = store.patch_columns(index)
    if not table.sizes["patch"]:
        shortest = np.minimum(store.catalog["height"].values, store.catalog["width"].values)
        fits = 1 << (int(shortest.max()).bit_length() - 1)
        return (
            f"0 patches, since every scene is smaller than {table.attrs['size']} pixels. The ground is split; to "
            f"train,\n    read smaller patches (patch_size={fits}), or padded ones (edge='pad')"
        )
    masks = {side: patches_of(store, split, table, side) for side in ("train", "val", "test")}
    return ", ".join(f"{m.sum()} {side} ({(m & taken).sum()})" for side, m in masks.items())


def _create_chip_split(
    store: Path, collection: str, *, notes: str, fresh: bool, dry_run: bool, **recipe: object
) -> None:
    """Make a version of a collection's split, and show its counts of chips."""
    made = sz.split_collection(
        store,
        collection,
        notes=notes,
        fresh=fresh,
        dry_run=dry_run,
        **recipe,  # type: ignore[arg-type]
    )
    opened = sz.open_collection(store, collection)
    for split in made:
        echo(chip_split_text(opened, split))
    if dry_run:
        echo("nothing was written")
