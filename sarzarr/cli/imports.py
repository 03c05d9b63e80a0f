"""Commands that take chips, boxes and polygons into a store."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typer import Argument, Option, echo

import sarzarr as sz
from sarzarr.cli.app import OutputOption, say
from sarzarr.cli.collections import labels_text
from sarzarr.cli.output import progress_bar
from sarzarr.errors import Exit, InvalidInputError
from sarzarr.text import counted, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarzarr.ingestion.chips.pack import SampleReport
    from sarzarr.ingestion.collections.boxes import ImportedBoxes
    from sarzarr.store.classes import MovedClass
    from sarzarr.store.samples import SampleSet

import_app = typer.Typer(
    help="Take older formats, chips, boxes and polygons into a store.", no_args_is_help=True
)
LABEL_HELP: Final = "The property of a feature, or the column, that is the label; 'label' if left out."
ONE_BASED_HELP: Final = "VOC coordinates count from 1 and name the last pixel."
STRICT_HELP: Final = "Write nothing where a picture cannot be read; else the others go in."
STORE_HELP: Final = "The .zarr store to make or to add to."
COLUMN_HELP: Final = "The property, or column, that has the class of a feature; all is 1 if left out."
TOUCHED_HELP: Final = "Take pixels that a polygon touches; else those whose centres it covers."
CHECK_HELP: Final = (
    "Hold the files of a metadata.npy against it, by headers and sizes alone, and write nothing."
)
FORM_HELP: Final = "What the values are; a metadata.npy says normalized."
REPLACE_HELP: Final = "Put the set in the place of one of that name."
UNMATCHED_HELP: Final = "Leave out annotations of pictures that are not there; else they stop the import."
LISTS_HELP: Final = (
    "CSV, TXT or JSON lists of names, whose side stands in a column, a key or the file's name; or train=FILE."
)
LABEL_COLUMN_HELP: Final = "The column, or key, of classes; 'label', 'class' or 'labels' if left out."
CLASSES_HELP: Final = "All classes in the order of their numbers, from 0: land,water. Of arrival if left out."
MULTI_HELP: Final = "A chip may have several classes, or none."
BOXES_HELP: Final = (
    "GeoJSON, or CSV scene,x_min,y_min,x_max,y_max[,label]; of chips COCO, YOLO, VOC, DOTA, or a folder."
)
ON_CHIPS_HELP: Final = "Put them onto the chips of this collection."
FORMAT_HELP: Final = "With --collection, how boxes are written down."
UNMATCHED_CHIPS_HELP: Final = (
    "With --collection, leave out annotations whose chip is not there; else they stop the import."
)
Annotations = StrEnum("Annotations", ["auto", "voc", "coco", "yolo", "dota", "none"])
"""Formats of boxes."""
ChipAnnotations = StrEnum("ChipAnnotations", ["auto", "coco", "yolo", "voc", "dota", "geojson", "csv"])
"""Formats of boxes on chips."""


class Policy(StrEnum):
    """Treatments of boxes that are not inside their picture."""

    repair = "repair"
    refuse = "refuse"


@import_app.command()
def chips(
    folder: Annotated[Path, Argument(help="PNG, JPEG or TIFF files, at any depth.", show_default=False)],
    store: OutputOption,
    name: Annotated[str | None, Option(help="Of the set; the folder's name if left out.")] = None,
    annotations: Annotated[Annotations, Option(help="How boxes are written down.")] = Annotations.auto,
    policy: Annotated[Policy, Option(help="About boxes that are not inside their picture.")] = Policy.repair,
    one_based: Annotated[bool, Option("--one-based", help=ONE_BASED_HELP)] = False,
    replace: Annotated[bool, Option("--replace", help=REPLACE_HELP)] = False,
    strict: Annotated[bool, Option("--strict", help=STRICT_HELP)] = False,
    leave_unmatched: Annotated[bool, Option("--leave-unmatched", help=UNMATCHED_HELP)] = False,
) -> None:
    """Pack pictures that came alone, with their boxes, into a store."""
    from sarzarr.ingestion.chips.find import ChipOptions

    options = ChipOptions(
        name=name,
        annotations=str(annotations),
        policy=policy.value,
        one_based=one_based,
        replace=replace,
        strict=strict,
        leave_unmatched=leave_unmatched,
    )
    with progress_bar(quiet=not sys.stderr.isatty(), unit="chips") as report:
        tell = None if report is None else lambda done, total: report(sz.Progress(done, total, folder.name))
        made, done = sz.import_chips(folder, store, options=options, progress=tell)
    kept = f"{counted(done.samples, 'chip')} of {made.layout.height} x {made.layout.width} at most"
    echo(f"{store.name}, samples/{made.name}: {kept}, {done.annotated} annotated")
    _tell_boxes(made, done)
    if done.coloured:
        echo(f"  {counted(done.coloured, 'chip')} in colour became the middle one of their channels")
    if done.unmatched:
        count = counted(len(done.unmatched), "annotation")
        echo(f"  {count} of pictures that are not there left out: {', '.join(done.unmatched[:10])}")
    _end_partly(store, done)


def _tell_boxes(made: "SampleSet", done: "SampleReport") -> None:
    b = done.boxes
    echo(
        f"  {counted(b['kept'], 'box')} of {b['given']}, {b['repaired']} repaired, {b['left_out']} without area "
        f"inside their picture left out; classes: {sz.store_classes(made.store)}"
    )
    if done.rotated or done.difficult:
        echo(f"  {counted(done.rotated, 'box')} rotated, {done.difficult} called difficult")
    _tell_moved(done.moved)


def _tell_moved(moved: "Sequence[MovedClass]") -> None:
    """Say which classes have another number in the store than in their list."""
    for one in moved:
        echo(f"  {one}")


def _end_partly(store: Path, done: "SampleReport") -> None:
    """List what was refused, and end with its exit code, where something was."""
    if done.refused:
        say(f"{counted(len(done.refused), 'picture')} refused, the others are in {store.name}:")
        for line in done.refused.lines():
            echo(f"  {line}", err=True)
        raise typer.Exit(Exit.PARTLY)


class PatchDtype(StrEnum):
    """Dtypes of patches."""

    float32 = "float32"
    uint16 = "uint16"


class Form(StrEnum):
    """Forms of the values of patches."""

    normalized = "normalized"
    db = "db"
    power = "power"


class MaskPixels(StrEnum):
    """Pixels that are not 0 in a mask."""

    valid = "valid"
    invalid = "invalid"


@import_app.command()
def npy(
    path: Annotated[Path, Argument(help="metadata.npy, a folder of .npy files, or one.", show_default=False)],
    store: Annotated[Path | None, Option("--output", "-o", help=STORE_HELP, show_default=False)] = None,
    name: Annotated[str | None, Option(help="Of the set; the folder's name if left out.")] = None,
    dtype: Annotated[
        PatchDtype, Option(help="float32 is exact; uint16 is within 7.63e-6.")
    ] = PatchDtype.float32,
    replace: Annotated[bool, Option("--replace", help=REPLACE_HELP)] = False,
    representation: Annotated[Form | None, Option(help=FORM_HELP, show_default=False)] = None,
    vmin: Annotated[float | None, Option(help="dB that 0 stands for, without metadata.")] = None,
    vmax: Annotated[float | None, Option(help="dB that 1 stands for, without metadata.")] = None,
    stride: Annotated[int | None, Option(help="Pixels between patches, without metadata.")] = None,
    masks: Annotated[MaskPixels | None, Option(help="The pixels that are not 0 in *_mask.npy.")] = None,
    check: Annotated[bool, Option("--check", help=CHECK_HELP)] = False,
) -> None:
    """Pack patches in .npy files into a store, as they are."""
    from sarzarr.ingestion.archives.patches import PatchOptions

    if check:
        wrong = sz.verify_patch_files(path)
        for listed, why in wrong:
            echo(f"{listed}: {why}")
        echo(
            f"{path}: {counted(len(wrong), 'file')} not as listed"
            if wrong
            else f"{path}: every file is as listed"
        )
        raise typer.Exit(Exit.DAMAGE if wrong else Exit.DONE)
    if store is None:
        raise InvalidInputError(
            "a store was expected, got none. Pass -o STORE, or --check to check the files alone."
        )
    options = PatchOptions(
        name=name,
        dtype=dtype.value,
        replace=replace,
        representation=representation and representation.value,
        vmin=vmin,
        vmax=vmax,
        stride=stride,
        masks=masks and masks.value,
    )
    with progress_bar(quiet=not sys.stderr.isatty(), unit="patches") as report:
        tell = None if report is None else lambda done, total: report(sz.Progress(done, total, path.name))
        made = sz.import_npy(path, store, options=options, progress=tell)
    table, layout = made.table, made.layout
    files, products = (len(set(table[column].values.tolist())) for column in ("file", "product"))
    echo(
        f"{store.name}, samples/{made.name}: {counted(len(made), 'patch')} of {layout.height} x {layout.width} in "
        f"{layout.dtype} from {counted(files, 'file')} of {counted(products, 'product')}; 0 and 1 are "
        f"{table.attrs['vmin']:.2f} and {table.attrs['vmax']:.2f} dB"
    )


@import_app.command("npz")
def import_spectrograms(
    folder: Annotated[Path, Argument(help="signals/NAME, with samples/ and splits/.", show_default=False)],
    store: OutputOption,
    name: Annotated[str | None, Option(help="Of the set; the folder's name if left out.")] = None,
    replace: Annotated[bool, Option("--replace", help=REPLACE_HELP)] = False,
    strict: Annotated[bool, Option("--strict", help=STRICT_HELP)] = False,
) -> None:
    """Pack spectrograms in .npz, with their .json and the versions of their split, into a store."""
    with progress_bar(quiet=not sys.stderr.isatty(), unit="samples") as report:
        tell = None if report is None else lambda done, total: report(sz.Progress(done, total, folder.name))
        made, done = sz.import_npz(folder, store, name=name, replace=replace, strict=strict, progress=tell)
    splits = sz.SplitManager(store)
    versions, active = splits.get_versions(made.name), splits.get_active_split_version(made.name)
    told = f"versions {', '.join(map(str, versions))}, v{active} active" if versions else "no split"
    echo(f"{store.name}, samples/{made.name}: {counted(done.samples, 'spectrogram')}; {told}")
    _tell_boxes(made, done)
    _end_partly(store, done)


@import_app.command()
def boxes(
    file: Annotated[Path, Argument(help=BOXES_HELP)],
    store: Annotated[Path, Option("--output", "-o", help="The .zarr store that holds scenes or chips.")],
    name: Annotated[str, Option(help="Of the table.")] = "default",
    scene: Annotated[str | None, Option(help="Of features that name none.")] = None,
    label: Annotated[str | None, Option(help=LABEL_HELP, show_default=False)] = None,
    policy: Annotated[Policy, Option(help="About boxes that are not inside their scene.")] = Policy.repair,
    collection: Annotated[str | None, Option(help=ON_CHIPS_HELP, show_default=False)] = None,
    annotations: Annotated[ChipAnnotations, Option(help=FORMAT_HELP)] = ChipAnnotations.auto,
    one_based: Annotated[bool, Option("--one-based", help=ONE_BASED_HELP)] = False,
    leave_unmatched: Annotated[bool, Option("--leave-unmatched", help=UNMATCHED_CHIPS_HELP)] = False,
) -> None:
    """Put boxes onto the scenes of a store, from map coordinates or pixels, or onto the chips of a collection."""
    from sarzarr.ingestion.boxes import why_left_out
    from sarzarr.store.classes import moved_tables

    if collection is not None:
        if scene is not None:
            raise InvalidInputError(f"boxes on chips were expected, got --scene {scene!r}. Leave it out.")
        done = sz.import_chip_boxes(
            store,
            collection,
            file,
            name=name,
            annotations=str(annotations),
            label_key=label,
            policy=policy.value,
            one_based=one_based,
            leave_unmatched=leave_unmatched,
        )
        _tell_chip_boxes(store, collection, name, done)
        return
    if annotations != ChipAnnotations.auto or one_based or leave_unmatched:
        raise InvalidInputError(
            "--annotations, --one-based and --leave-unmatched are of chips, got no --collection. Name it, or leave "
            "them out."
        )
    opened = sz.open_store(store)
    made = sz.import_boxes(opened, file, name=name, scene=scene, label_key=label, policy=policy.value)
    c = made.counts
    echo(
        f"{store.name}, boxes/{name}: {counted(c['kept'], 'box')} of {c['given']} put on, {c['repaired']} repaired, "
        f"{c['left_out']} left out{why_left_out(c)}; {len(made)} in all on {counted(len(made.owners), 'scene')}, "
        f"{made.turned} rotated; classes: {sz.store_classes(opened)}"
    )
    _tell_moved(moved_tables(opened.place))


def _tell_chip_boxes(store: Path, collection: str, name: str, done: "ImportedBoxes") -> None:
    from sarzarr.ingestion.boxes import why_left_out

    c, made = done.counts, done.boxes
    echo(
        f"{store.name}, collections/{collection}, boxes/{name}: {counted(c['kept'], 'box')} of {c['given']} put on "
        f"{counted(done.chips, 'chip')}, {c['repaired']} repaired, {c['left_out']} left out{why_left_out(c)}; "
        f"{len(made)} in all on {counted(len(made.owners), 'chip')}, {made.turned} rotated; classes: "
        f"{sz.store_classes(store)}"
    )
    if done.elsewhere:
        echo(f"  {counted(done.elsewhere, 'feature')} on no chip, or with less than 0.3 of the box, left out")
    if done.unmatched:
        count = counted(len(done.unmatched), "annotation")
        echo(f"  {count} of chips that are not there left out: {listed(done.unmatched)}")
    _tell_moved(done.moved)


@import_app.command()
def polygons(
    file: Annotated[Path, Argument(help="GeoJSON, GeoPackage, shapefile or FlatGeobuf.", show_default=False)],
    store: Annotated[Path, Option("--output", "-o", help="The .zarr store that holds the scenes.")],
    layer: Annotated[str, Option(help="Name of the layer that they are burnt into.", show_default=False)],
    column: Annotated[str | None, Option(help=COLUMN_HELP, show_default=False)] = None,
    table: Annotated[str | None, Option(help="Of a file that has several.", show_default=False)] = None,
    scenes: Annotated[list[str] | None, Option("--scene", help="The scenes; all if left out.")] = None,
    all_touched: Annotated[bool, Option("--all-touched", help=TOUCHED_HELP)] = False,
    replace: Annotated[bool, Option("--replace", help="Write another layer of that name anew.")] = False,
) -> None:
    """Burn polygons into a layer of the scenes of a store."""
    with progress_bar(quiet=not sys.stderr.isatty()) as report:
        made = sz.import_polygons(
            store,
            file,
            layer=layer,
            column=column,
            table=table,
            scenes=scenes,
            all_touched=all_touched,
            replace=replace,
            progress=report,
        )
    there = f", {len(made.present)} had it already" if made.present else ""
    names = ", ".join(f"{value} {name}" for value, name in made.classes.items())
    echo(
        f"{store.name}, layer {layer}: {counted(made.polygons, 'polygon')} burnt into "
        f"{counted(len(made.written), 'scene')}{there}; 0 is background, {names}"
    )
    if made.empty:
        echo(f"  no polygon lies on {listed(made.empty)}: 0 throughout")
    if made.refused:
        say(f"{counted(len(made.refused), 'scene')} refused, the others have the layer:")
        for line in made.refused.lines():
            echo(f"  {line}", err=True)
        raise typer.Exit(Exit.PARTLY)


@import_app.command()
def ptychography(
    file: Annotated[
        Path, Argument(help="An NPZ file of frames, positions, probe and object.", show_default=False)
    ],
    store: OutputOption,
    name: Annotated[str | None, Option(help="Of the set; the file's name if left out.")] = None,
    replace: Annotated[bool, Option("--replace", help=REPLACE_HELP)] = False,
) -> None:
    """Pack the diffraction frames of a scan, with its positions, probe and object, into a store."""
    with progress_bar(quiet=not sys.stderr.isatty(), unit="frames") as report:
        tell = None if report is None else lambda done, total: report(sz.Progress(done, total, file.name))
        made = sz.import_ptychography(file, store, name=name, replace=replace, progress=tell)
    size, energy = made.layout.height, made.table["energy"]
    echo(
        f"{store.name}, samples/{made.name}: {counted(len(made), 'frame')} of {size} x {size}, mean energy "
        f"{float(energy.mean()):.6g}"
    )


StoreOption = Annotated[
    Path, Option("--output", "-o", help="The .zarr store that holds the collection.", show_default=False)
]
CollectionOption = Annotated[str, Option(help="Name of the collection.", show_default=False)]


@import_app.command("split")
def split_lists(
    lists: Annotated[list[str], Argument(help=LISTS_HELP, show_default=False)],
    store: StoreOption,
    collection: CollectionOption,
    notes: Annotated[str, Option(help="Kept with the version.")] = "",
) -> None:
    """Keep the split that an archive's lists say as a version, and tell how much ground is on two sides."""
    done = sz.import_split_lists(store, collection, lists, notes=notes)
    first, *more = done.lines
    echo(f"{store.name}, collections/{collection}, split {done.split.name}: {first}")
    for line in more:
        echo(f"  {line}")


@import_app.command("labels")
def chip_labels(
    file: Annotated[Path, Argument(help="CSV or JSON: classes of chips by name.", show_default=False)],
    store: StoreOption,
    collection: CollectionOption,
    name: Annotated[str, Option(help="Of the set of labels.")] = "default",
    column: Annotated[str | None, Option(help=LABEL_COLUMN_HELP, show_default=False)] = None,
    classes: Annotated[str | None, Option(help=CLASSES_HELP, show_default=False)] = None,
    multi: Annotated[bool, Option("--multi", help=MULTI_HELP)] = False,
) -> None:
    """Put labels on whole chips: one class each, or several; readers deliver them with labels=."""
    done = sz.import_labels(
        store,
        collection,
        file,
        name=name,
        column=column,
        classes=None if classes is None else classes.split(","),
        multi=True if multi else None,
    )
    labels = done.labels
    count = int(labels.known.sum())
    echo(f"{store.name}, collections/{collection}, labels {name}: {labels_text(labels)}")
    if count < len(labels.known):
        echo(f"  {len(labels.known) - count} of {counted(len(labels.known), 'chip')} without")
    if done.unknown:
        echo(f"  {len(done.unknown)} names that are no chip here: {listed(done.unknown)}")
    _tell_moved(done.moved)
