"""Lightning: each patch once an epoch over all ranks, by every strategy, and on from any checkpoint."""

import copy
import pickle
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
L = pytest.importorskip("lightning.pytorch", reason="lightning is not installed (sarzarr[frameworks])")
from chip_collections import ids_of as chip_ids  # noqa: E402
from chip_collections import make_chips  # noqa: E402
from conftest import speckle, write_band  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import sarzarr as sz  # noqa: E402
from sarzarr.errors import InvalidInputError  # noqa: E402
from sarzarr.torch import PatchLoader, SARDataModule, ZarrPatchDataset  # noqa: E402

# These are Lightning's: advice on workers, whose number is right, and on what a logger would show.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:You defined a .validation_step. but have no"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
]
PATCHES = {"val_fraction": 0.2, "batch_size": 4, "with_meta": True, "min_unsaturated": 0.0}
FEW = PATCHES | {"max_samples": 20}
"""Four training steps an epoch, and one of validation."""
QUIET = dict.fromkeys(
    ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
) | {"accelerator": "cpu"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lightning")
    write_band(folder / "s_vv.tif", speckle((2600, 2600), seed=3), tiles=256)
    return sz.ingest(
        sz.plan_ingest(folder / "s_vv.tif", folder / "s.zarr", quantity="sigma0", representation="power")
    )


class Counting(L.LightningModule):
    """A model that notes (stage, epoch, ids) of what it is given."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def note(self, stage, batch):
        stage = "sanity" if self.trainer.sanity_checking else stage
        self.seen.append((stage, self.trainer.current_epoch, batch["id"].tolist()))
        return self.layer(batch["image"].mean().reshape(1, 1)).sum()

    def training_step(self, batch, _):
        return self.note("train", batch)

    def validation_step(self, batch, _):
        self.note("val", batch)

    test_step = validation_step

    def predict_step(self, batch, _):
        return self.note("predict", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def epochs(self, stage="train"):
        """Return the ids of each epoch, sorted."""
        found = {}
        for noted, epoch, ids in self.seen:
            if noted == stage:
                found.setdefault(epoch, []).extend(ids)
        return {epoch: sorted(ids) for epoch, ids in found.items()}


def fit(module, *, checkpoint=None, callbacks=(), model=None, **options):
    """Return the model after a fit of two epochs."""
    model = Counting() if model is None else model
    options = {"max_epochs": 2, "devices": 1, **QUIET, **options}
    L.Trainer(callbacks=list(callbacks), **options).fit(
        model, datamodule=module, ckpt_path=checkpoint, weights_only=False
    )
    return model


def ids_of(dataset):
    return dataset.reader.selection.id.tolist()


# ------------------------------------------------------------------ the class
def test_the_module_is_one_of_lightning_and_pickles(store):
    module = SARDataModule(store, **PATCHES)
    assert isinstance(module, L.LightningDataModule)
    assert issubclass(SARDataModule, L.LightningDataModule)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert type(other) is SARDataModule
        assert other.train_size == module.train_size
    assert isinstance(module.train_dataloader(), DataLoader)


IMPORTS = """
import sys
import sarzarr.torch
assert not {"lightning", "pytorch_lightning"} & set(sys.modules)
sarzarr.torch.ZarrPatchDataset, sarzarr.torch.PatchLoader
assert not {"lightning", "pytorch_lightning"} & set(sys.modules)
"""
ABSENT = """
import pickle, sys
sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
from sarzarr.torch import SARDataModule
module = SARDataModule(sys.argv[1], val_fraction=0.2, min_unsaturated=0.0)
assert [base.__name__ for base in type(module).__mro__] == ["SARDataModule", "object"]
assert pickle.loads(pickle.dumps(module)).train_size == module.train_size
assert len(next(iter(module.train_dataloader()))) == 8
"""
OTHER_NAME = """
import sys, warnings
warnings.simplefilter("ignore")
import pytorch_lightning as pl
from sarzarr.torch import SARDataModule
assert issubclass(SARDataModule, pl.LightningDataModule)
assert "lightning" not in sys.modules
module = SARDataModule(sys.argv[1], val_fraction=0.2, min_unsaturated=0.0)
import lightning
from lightning.pytorch.demos.boring_classes import BoringModel
try:
    lightning.Trainer(logger=False, accelerator="cpu").fit(BoringModel(), datamodule=module)
except ValueError as error:
    assert "Import lightning before SARDataModule" in str(error)
else:
    raise AssertionError
"""


@pytest.mark.parametrize("code", [IMPORTS + ABSENT, pytest.param(OTHER_NAME, marks=pytest.mark.slow)])
def test_lightning_is_imported_where_it_is_needed(store, code):
    done = subprocess.run(
        [sys.executable, "-c", code, store.root], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ one process
@pytest.mark.parametrize(
    "options", [{}, {"reload_dataloaders_every_n_epochs": 1}, {"num_sanity_val_steps": 0}]
)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_each_epoch_has_every_patch_once(store, workers, options):
    module = SARDataModule(store, num_workers=workers, **FEW)
    model = fit(module, max_epochs=3, **options)
    steps = module.train_size // 4
    everything = set(ids_of(module._train))
    for epoch in range(3):
        train, val = model.epochs()[epoch], model.epochs("val")[epoch]
        assert len(train) == len(set(train)) == 4 * steps
        assert set(train) <= everything
        assert val == sorted(ids_of(module._val))
    if "num_sanity_val_steps" in options:
        looked = fit(SARDataModule(store, num_workers=workers, **FEW), max_epochs=3, num_sanity_val_steps=2)
        assert [note for note in looked.seen if note[0] != "sanity"] == model.seen


def test_a_module_in_memory_trains_and_prints(store):
    class Plain(Counting):
        def note(self, stage, batch):
            self.seen.append((stage, self.trainer.current_epoch, [len(batch)]))
            return self.layer(batch.mean().reshape(1, 1)).sum()

    options = {k: v for k, v in FEW.items() if k != "with_meta"}
    module = SARDataModule(store, lazy=False, **options)
    model = fit(module, model=Plain())
    assert sum(n for stage, _, (n,) in model.seen if stage == "train") == 2 * 16
    assert str(module) == repr(module)
    assert str(module).endswith("16 for training, 4 for validation)")
    assert module.state_dict() == {}


def test_a_second_fit_begins_with_the_epoch_that_its_trainer_counts(store):
    module = SARDataModule(store, **FEW)
    first, second = fit(module, max_epochs=1), fit(module, max_epochs=2)
    assert [note for note in second.seen if note[1] == 0] == first.seen


def test_overfitting_takes_the_same_batches_again(store):
    model = fit(SARDataModule(store, **FEW), overfit_batches=2, max_epochs=3)
    train = [ids for stage, _, ids in model.seen if stage == "train"]
    assert train[0:2] == train[2:4] == train[4:6]


class Saving(L.Callback):
    """Saves a checkpoint at the end of each training batch, of each epoch, and in each validation."""

    def __init__(self, folder):
        self.folder = folder
        self.saved = []

    def save(self, trainer, model, where):
        place = self.folder / f"{len(self.saved)}.ckpt"
        trainer.save_checkpoint(place)
        self.saved.append((where, place, list(model.seen)))

    def on_train_batch_end(self, trainer, model, *_):
        self.save(trainer, model, "batch")

    def on_train_epoch_end(self, trainer, model):
        self.save(trainer, model, "epoch")


@pytest.mark.parametrize(
    ("workers", "limits"),
    [
        (0, {}),
        pytest.param(0, {"max_epochs": -1, "max_steps": 8}, marks=pytest.mark.slow),
        pytest.param(0, {"val_check_interval": 3}, marks=pytest.mark.slow),
        pytest.param(2, {}, marks=pytest.mark.slow),
    ],
)
def test_any_checkpoint_goes_on_with_the_next_batch(store, tmp_path, workers, limits):
    saving = Saving(tmp_path)
    whole = fit(SARDataModule(store, num_workers=workers, **FEW), callbacks=[saving], **limits)
    train = [note for note in whole.seen if note[0] == "train"]
    assert len(train) == 8
    some = saving.saved[1::3] if workers or limits else saving.saved
    assert {where for where, *_ in some} == {"batch", "epoch"}
    for where, place, before in some:
        model = fit(SARDataModule(store, num_workers=workers, **FEW), checkpoint=place, **limits)
        found = [note for note in [*before, *model.seen] if note[0] == "train"]
        assert found == train, (where, place)


def test_a_state_in_the_middle_wants_as_many_ranks_and_as_large_batches(store, tmp_path):
    saving = Saving(tmp_path)
    fit(SARDataModule(store, **FEW), callbacks=[saving], max_epochs=1)
    middle, end = saving.saved[2][1], saving.saved[-1][1]
    other = FEW | {"batch_size": 2}
    with pytest.raises(InvalidInputError, match="batch_size 4 was expected"):
        fit(SARDataModule(store, **other), checkpoint=middle)
    model = fit(SARDataModule(store, **other), checkpoint=end)
    assert {note[1] for note in model.seen if note[0] == "train"} == {1}


def test_states_without_a_trainer(store):
    """Of a loop of one's own."""
    for workers in (0, 1):
        module = SARDataModule(store, num_workers=workers, **FEW)
        batches = iter(module.train_dataloader())
        for _ in range(3):
            next(batches)
        rest = [batch["id"].tolist() for batch in copy.deepcopy(list(batches))]
        state = module.state_dict(taken=3)
        other = SARDataModule(store, **FEW)
        other.load_state_dict(state)
        assert [batch["id"].tolist() for batch in other.train_dataloader()] == rest


def test_prediction_and_test_deliver_each_patch_once(tmp_path):
    write_band(tmp_path / "s_vv.tif", speckle((2600, 2600), seed=3), tiles=256)
    made = sz.ingest(
        sz.plan_ingest(tmp_path / "s_vv.tif", tmp_path / "s.zarr", quantity="sigma0", representation="power")
    )
    sz.make_split(made, val_fraction=0.2, test_fraction=0.2)
    module = SARDataModule(made, split="v1", **{k: v for k, v in PATCHES.items() if k != "val_fraction"})
    trainer = L.Trainer(devices=1, **QUIET)
    model = Counting()
    trainer.test(model, datamodule=module)
    kept = {"with_meta": True, "min_unsaturated": 0.0}
    assert model.epochs("val")[0] == sorted(ids_of(ZarrPatchDataset(made, split="v1:test", **kept)))
    model.seen.clear()
    trainer.predict(model, datamodule=module, return_predictions=False)
    assert model.epochs("predict")[0] == sorted(ids_of(ZarrPatchDataset(made, **kept)))
    with pytest.raises(InvalidInputError, match="pass its name as split="):
        trainer.test(model, datamodule=SARDataModule(made, **PATCHES))


def test_a_loader_alone_goes_on_from_any_checkpoint(store, tmp_path):
    """Without a data module it is the loader whose state Lightning keeps."""
    options = {"batch_size": 8, "shuffle": True, "with_meta": True, "max_patches": 40, "min_unsaturated": 0.0}

    def run(checkpoint=None, callbacks=()):
        model = Counting()
        trainer = L.Trainer(max_epochs=2, devices=1, callbacks=list(callbacks), **QUIET)
        trainer.fit(
            model,
            PatchLoader(ZarrPatchDataset(store, **options)),
            ckpt_path=checkpoint,
            weights_only=False,
        )
        return model

    saving = Saving(tmp_path)
    whole = run(callbacks=[saving])
    for _, place, before in saving.saved:
        assert [*before, *run(place).seen] == whole.seen, place


# ------------------------------------------------------------------ chips of a collection
@pytest.mark.slow
def test_a_trainer_fits_and_tests_chips_with_their_boxes(tmp_path):
    """Each training chip once an epoch, whatever dicts of boxes come beside them."""
    chips = make_chips(tmp_path / "s.zarr", sizes=((16, 16),) * 20)
    sz.split_collection(chips, "floods", val_fraction=0.2, test_fraction=0.2)
    (tmp_path / "b.csv").write_text("chip,x_min,y_min,x_max,y_max\n" + f"{chip_ids(20)[3]},1,1,5,5\n")
    sz.import_chip_boxes(chips, "floods", tmp_path / "b.csv")
    module = SARDataModule(
        chips.root,
        collection="floods",
        split="v1",
        batch_size=4,
        with_meta=True,
        boxes=True,
        max_samples=None,
    )
    model = fit(module)
    assert model.epochs() == dict.fromkeys((0, 1), sorted(ids_of(module._train)))
    L.Trainer(devices=1, **QUIET).test(model, datamodule=module)
    assert len(model.seen[-1][2]) == 4  # its test step is that of validation
