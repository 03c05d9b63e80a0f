"""Commands about splits."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sarzarr import conventions as cv
from sarzarr.cli.output import asked_by_default, taken_by_default
from sarzarr.errors import InvalidInputError

if TYPE_CHECKING:
    from sarzarr.store.split_table import Split
    from sarzarr.store.store import Store

split_app = typer.Typer(
    help="Divide a store's ground into train, validation and test; no ground is on two sides.",
    no_args_is_help=True,
)
WIDTHS: Final = {"scene": 20, "place": 12}
"""Least characters of the columns that `show` lists scenes in."""
FAR_BELOW: Final = 0.5
"""Share of the validation asked for below which it is worth a word."""
SITE_HELP: Final = (
    "SCENE=NAME, for scenes without a place in the world; the scene may be a pattern such as '2019*'. Scenes that "
    "show the same ground have the same name. May be repeated."
)
SiteOption = Annotated[list[str] | None, typer.Option("--site", help=SITE_HELP)]
NotesOption = Annotated[str, typer.Option(help="Kept with the version.")]


class By(StrEnum):
    """What is drawn."""

    ground = "ground"
    scene = "scene"
    site = "site"


@split_app.callback()
def _store(
    context: typer.Context,
    store: Annotated[Path, typer.Argument(help="The .zarr store.", show_default=False)],
) -> None:
    context.obj = store


def _opened(context: typer.Context) -> "Store":
    from sarzarr.store.store import open_store

    return open_store(context.obj)


def parse_sites(said: list[str] | None) -> dict[str, str]:
    """Return names of sites by pattern.

    >>> parse_sites(["2019*=lake", "x=harbour"])
    {'2019*': 'lake', 'x': 'harbour'}
    """
    out = {}
    for text in said or ():
        pattern, equals, name = text.rpartition("=")
        if not (pattern and equals and name):
            raise InvalidInputError(f"SCENE=NAME was expected, got {text!r}.")
        out[pattern] = name
    return out


# ------------------------------------------------------------------ split
@split_app.command()
def create(
    context: typer.Context,
    val: Annotated[float, typer.Option(help="Share of the blocks that is validation.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of them that is test.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed is another split.")] = 42,
    block: Annotated[
        str,
        typer.Option(help="Side of a block: 10km, 500m; auto: 10km, or what few scenes or large cells need."),
    ] = "auto",
    pixel_block: Annotated[
        int | None,
        typer.Option(
            help="Side of a block in pixels, where scenes have no place in the world; 1024 or less.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[By, typer.Option(help="Draw blocks of ground, whole scenes or whole sites.")] = By.ground,
    guard: Annotated[str | None, typer.Option(help="Margin about a cell; two pixels if left out.")] = None,
    site: SiteOption = None,
    fixed_val: Annotated[
        bool, typer.Option("--fixed-val", help="Ground that arrives later is training, or held back.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew beside the versions there are.")] = False,
    notes: NotesOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the split and write nothing.")] = False,
) -> None:
    """Make a split by ground, check that it leaks nothing, and write it as a new version."""
    from sarzarr.splits.make import make_split, plan_split

    store = _opened(context)
    recipe: dict[str, Any] = {
        "val_fraction": val, "test_fraction": test, "seed": seed, "block": block, "by": str(by), "guard": guard,
        "pixel_block": pixel_block,
        "fixed_val": fixed_val,
    }  # fmt: skip
    if dry_run:
        split = plan_split(store, sites=parse_sites(site), notes=notes, **recipe)
    else:
        split = make_split(store, sites=parse_sites(site), notes=notes, fresh=fresh, **recipe)
    typer.echo(describe(store, split) + ("\nnothing was written" if dry_run else ""))


@split_app.command()
def extend(context: typer.Context, site: SiteOption = None, notes: NotesOption = "") -> None:
    """Write a version that knows every scene; what is known stays as it is."""
    from sarzarr.splits.make import extend_split
    from sarzarr.splits.versions import get_split

    store = _opened(context)
    before = get_split(store)
    split = extend_split(store, sites=parse_sites(site), notes=notes)
    typer.echo("nothing is pending" if split.version == before.version else describe(store, split))


@split_app.command("list")
def list_(context: typer.Context) -> None:
    """List the versions, oldest first."""
    from sarzarr.splits.versions import list_splits

    splits = list_splits(_opened(context))
    if not splits:
        typer.echo("no split yet: make one with `sarzarr split STORE create`")
        return
    typer.echo(
        f"{'':<5}{'parent':<8}{'made':<22}{'by':<8}{'block':<16}{'seed':>6}{'scenes':>8}{'val':>7}{'held':>7}  notes"
    )
    for s in splits:
        parent = f"v{s.parent}" if s.parent else "-"
        block = ", ".join(s.blocks) or "-"
        typer.echo(
            f"{s.name:<5}{parent:<8}{s.created_at:<22}{s.recipe.by:<8}{block:<16}{s.recipe.seed:>6}{len(s.scenes):>8}"
            f"{s.val_ratio:>7.1%}{s.held_back_share:>7.1%}  {s.notes}"
        )


@split_app.command()
def show(
    context: typer.Context,
    version: Annotated[str | None, typer.Argument(help="v1, v2, ...; the newest if left out.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw footprints and blocks into this picture.")] = None,
) -> None:
    """Show what a version says; with --png, draw it."""
    from sarzarr.splits.versions import get_split

    store = _opened(context)
    split = get_split(store, _number(version))
    typer.echo(describe(store, split))
    wide, far = (max([most, *(len(getattr(s, k)) for s in split.scenes)]) for k, most in WIDTHS.items())
    for s in split.scenes:
        sides = zip(("train", "val", "test", "held"), (1, 2, 3, 0), strict=True)
        counts = "".join(f"{name:>7} {int((s.codes == code).sum()):>5}" for name, code in sides)
        typer.echo(f"  {s.scene:<{wide}}  {s.place:<{far}}{counts}")
    if png is not None:
        from sarzarr.export.split_picture import write_split_picture

        typer.echo(f"wrote {write_split_picture(store, split, png)}")


@split_app.command()
def pending(context: typer.Context) -> None:
    """List the scenes that the newest version does not know."""
    from sarzarr.splits.make import pending as of

    found = of(_opened(context))
    for name, scenes, meaning in (
        ("new", found.new, ""),
        ("changed", found.changed, ", replaced on another grid"),
        ("gone", found.gone, ", no longer in the store"),
    ):
        for scene in scenes:
            typer.echo(f"{name:<9}{scene}{meaning}")
    if not (found.new or found.changed or found.gone):
        typer.echo("nothing is pending")


@split_app.command()
def check(
    context: typer.Context,
    version: Annotated[str | None, typer.Argument(help="v1, v2, ...; the newest if left out.")] = None,
) -> None:
    """Check once more that a version shares no ground between its sides."""
    from sarzarr.splits.exchange import check_split
    from sarzarr.splits.versions import get_split

    store = _opened(context)
    split = get_split(store, _number(version))
    check_split(store, split)
    typer.echo(f"{split.name}: no ground is on two sides")


@split_app.command()
def export(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="The JSON document.")],
    version: Annotated[str | None, typer.Option(help="v1, v2, ...; the newest if left out.")] = None,
) -> None:
    """Write a version as a JSON document."""
    from sarzarr.splits.exchange import export_split

    typer.echo(f"wrote {export_split(_opened(context), output, _number(version))}")


@split_app.command("import")
def import_(
    context: typer.Context, document: Annotated[Path, typer.Argument(help="What `export` wrote.")]
) -> None:
    """Take in a version that was exported, under its own number."""
    from sarzarr.splits.exchange import import_split

    store = _opened(context)
    typer.echo(describe(store, import_split(store, document)))


def _number(version: str | None) -> int | None:
    if version is None:
        return None
    digits = version.removeprefix("v")
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidInputError(f"a version such as v2 was expected, got {version!r}.")
    return int(digits)


def describe(store: "Store", split: "Split") -> str:
    """Return what a split is, in a few lines."""
    r, counts = split.recipe, split.counts
    fixed = ", validation fixed" if r.fixed_val else ""
    blocks = f", blocks of {' and '.join(split.blocks)}" if split.blocks else ""
    drawn = f" ({r.drawn:.0%} of the blocks drawn)" if r.drawn else ""
    parent = f", extends v{split.parent}" if split.parent else ""
    said = f"{counts['train']} train, {counts['val']} val, {counts['test']} test, {counts['held_back']} held back"
    lines = [
        f"{store.root.name}, split {split.name}{parent}",
        f"  by {r.by}{blocks}, seed {r.seed}, {r.val_fraction:.0%} asked for{drawn}{fixed}",
        f"  {len(split.scenes)} scenes, {sum(counts.values())} cells of {cv.CELL} x {cv.CELL}: {said}",
        f"  validation is {split.val_ratio:.1%} of what is used, {split.held_back_share:.1%} of all is held back",
    ]
    if split.val_ratio < FAR_BELOW * r.val_fraction:
        lines.append(
            "  less than was asked for: its blocks are small for these cells; larger ones lose less at their edges"
        )
    lines += [f"  patches/{index}: {_patches_said(store, split, index)}" for index in store.patch_indices]
    if store.patch_indices:
        lines.append(f"  in brackets: what readers take by default, {asked_by_default()}")
    return "\n".join(lines)


def _patches_said(store: "Store", split: "Split", index: str) -> str:
    """Return how many patches of an index are on each side, and in brackets how many of them readers take."""
    from sarzarr.splits.versions import patches_of

    table = store.patch_columns(index)
    if not table.sizes["patch"]:
        sides = zip(
            store.catalog["height"].values.tolist(), store.catalog["width"].values.tolist(), strict=True
        )
        fits = 1 << (max(min(pair) for pair in sides).bit_length() - 1)
        return (
            f"0 patches, since every scene is smaller than {table.attrs['size']} pixels. The ground is split; to "
            f"train,\n    read smaller patches (patch_size={fits}), or padded ones (edge='pad' and min_valid below 1)"
        )
    taken = taken_by_default(store, index)
    masks = {side: patches_of(store, split, table, side) for side in ("train", "val", "test")}
    return ", ".join(f"{m.sum()} {side} ({(m & taken).sum()})" for side, m in masks.items())
