"""TensorFlow: tf.data.Dataset.from_generator over a reader."""

import os
import warnings

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
import tensorflow as tf
from counts import OPTIONS, example, row

import sarzarr as sz


def rows(root):
    """Yield the row of two epochs."""
    reader = sz.PatchReader(root, **OPTIONS)
    every = reader.selection.id.tolist()
    shapes = (
        tf.TensorSpec((None, 1, 256, 256), tf.float32),
        tf.TensorSpec((None,), tf.int64),
    )

    def batches():
        for batch in reader:
            yield batch["image"], batch["id"]

    data = tf.data.Dataset.from_generator(batches, output_signature=shapes).prefetch(2)
    epochs = [[i for _, ids in data for i in ids.numpy().tolist()] for _ in range(2)]
    package = "tf.data.Dataset.from_generator over a PatchReader"
    yield row(package, epochs, every, line="output_signature=(images, ids)")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("TensorFlow", "tensorflow-cpu", rows)
