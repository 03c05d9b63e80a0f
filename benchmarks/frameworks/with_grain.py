"""Grain and JAX: patches by number through Grain's sampler, and the reader as a plain iterator."""

import warnings

import grain
import jax
import jax.numpy as jnp
from counts import OPTIONS, example, row

import sarzarr as sz


def rows(root):
    """Yield the rows."""
    reader = sz.PatchReader(root, **OPTIONS)
    every = reader.selection.id.tolist()
    mean = jax.jit(lambda images: jnp.mean(images))
    epochs = []
    for _ in range(2):
        epochs.append([])
        for batch in reader:
            mean(jnp.asarray(batch["image"])).block_until_ready()
            epochs[-1] += batch["id"].tolist()
    yield row("PatchReader as an iterator, arrays to jnp.asarray", epochs, every)
    reader = sz.PatchReader(root, **OPTIONS)
    found = []
    for shard in range(2):
        batches = grain.MapDataset.source(reader)[shard::2].to_iter_dataset()
        for batch in batches:
            mean(jnp.asarray(batch["image"])).block_until_ready()
            found += batch["id"].tolist()
    yield row("grain.MapDataset.source(reader), two processes' slices", [found], every)
    found = []
    for rank in range(2):
        for batch in sz.PatchReader(root, **OPTIONS).for_rank(rank, 2):
            found += batch["id"].tolist()
    yield row(
        "for_rank(jax.process_index(), jax.process_count())",
        [found],
        every,
        line="reader.for_rank(rank, ranks)",
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("Grain, JAX", "grain", rows)
