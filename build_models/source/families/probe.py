"""What a model's tensors hold for random pictures: how families tell logits from probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from build_models.graph.model_io import inputs_of, open_session, with_outputs

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

PROBES = 4
_BLOCK = 16


def probe(model: onnx.ModelProto, tensor: str) -> NDArray[Any]:
    """The tensor for `PROBES` pictures, stacked: noise pixel by pixel, which looks like nothing, and in blocks.

    Args:
        model: one input of static shape, uint8 or float32, fed with values 0..255.
        tensor: its name.
    """
    (source,) = inputs_of(model)
    shape = source.static_shape
    assert shape is not None, "fix_shape made it static"
    rng = np.random.default_rng(0)
    session = open_session(with_outputs(model, [tensor]), optimise=True)
    results = []
    for number in range(PROBES):
        picture = rng.integers(0, 256, shape)
        if number % 2:
            for axis, side in enumerate(shape):
                if side > _BLOCK:
                    picture = picture.take(np.arange(side) // _BLOCK, axis=axis)
        results.append(session.run([tensor], {source.name: picture.astype(source.dtype)})[0])
    return np.stack(results)
