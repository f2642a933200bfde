"""Family ``segmentation``: one output that says of every place which class it shows.

Scores of all classes (``[1, C, h, w]`` or ``[1, h, w, C]``), the score of one thing against the rest
(``[1, 1, h, w]`` and the like), or class ids (the same shapes, or ``[1, h, w]``). A mask may be coarser than the
input; the device lays it over the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from onnx import TensorProto
from pydantic import Field

from build_models.errors import RecipeError
from build_models.graph.mask_tail import CLASS_AXIS, MaskTail, mask_tail, write_resize
from build_models.graph.model_io import TensorInfo, describe
from build_models.source.families.base import Arrays, Family, Head
from build_models.source.families.probe import PROBES, probe

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from agent.model.manifest import Task
    from build_models.graph.mask_tail import Layout
    from build_models.graph.writer import GraphWriter

_MOST_CLASSES = 256  # a byte of the mask
_IDS = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"}
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class MaskHead(Head):
    """And, of scores of several classes, where decoding starts."""

    tail: MaskTail | None = None


class Segmentation(Family):
    """One output of scores or class ids, by place."""

    task: ClassVar[Task] = "segment"
    expects: ClassVar[str] = (
        "one output of scores [1,C,h,w] or [1,h,w,C] in float32, or of class ids [1,h,w], [1,1,h,w] or [1,h,w,1]"
    )
    input_defaults: ClassVar[dict[str, Any]] = {"resize": "stretch"}
    family: Literal["segmentation"] = "segmentation"
    tensor: str | None = Field(None, description="name of the output; null: the only one")
    content: Literal["auto", "scores", "ids"] = Field(
        "auto", description='what it holds; "auto": ids if whole numbers, of one channel, else scores'
    )
    layout: Literal["auto", "nchw", "nhwc"] = Field(
        "auto", description="axis order of the scores; auto: from the number of labels, then the input's proportions"
    )
    activation: Literal["auto", "softmax", "sigmoid", "none"] = Field(
        "auto",
        description="what turns scores into probabilities, for confidence and threshold; "
        '"auto": none if they are some already, else softmax, or sigmoid for one channel',
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="one channel: the probability above which a place shows class 1"
    )
    confidence: bool = Field(False, description="also tell how sure the model is of each place, 0..255")
    coarse: bool = Field(
        False, description="a mask as coarse as the network finds it: leave out the Resize that ends it, for speed"
    )

    def recognise(self, model: onnx.ModelProto, input_hw: tuple[int, int], label_count: int) -> Head:
        """By type and shape; what these leave open by the number of labels and by values for random pictures."""
        info = self.pick(model, self.tensor)
        layout, channels, size_hw, rule = self._layout(model, info, input_hw, label_count)
        if max(channels, label_count) > _MOST_CLASSES:
            raise RecipeError(
                f"family segmentation: expected at most {_MOST_CLASSES} classes, as many as a byte of the mask tells "
                f"apart, found {max(channels, label_count)}; export the model with fewer, or with merged classes"
            )
        values = probe(model, info.name)
        content = self._content(info, channels, values, label_count)
        if self.confidence and content == "ids":
            raise RecipeError(f"output.confidence needs scores, but {info} holds class ids; leave it out")
        activation = self._activation(values, channels, layout) if content == "scores" else "none"
        classes = label_count if content == "ids" else max(channels, 2)
        family = self.model_copy(
            update={"tensor": info.name, "layout": layout, "content": content, "activation": activation}
        )
        tail, source = None, info.name
        inner: tuple[str, ...] = ()
        if content == "scores" and channels > 1:
            tail = self._tail(model, info.name, layout, size_hw)
            inner = (tail.tensor,)
            if self.coarse:
                source, size_hw = tail.tensor, tail.size_hw
                family = family.model_copy(update={"tensor": source, "layout": tail.layout})
            if tail.left_out:
                rule += f"; left out in front of it: {', '.join(reversed(tail.left_out))}"
        elif self.coarse:
            raise RecipeError("output.coarse: needs scores of several classes; leave it out")
        said = f"{content} {layout} by {rule}; activation {activation}: {_seen(values)}"
        return MaskHead(family, (source,), classes, 0, said, inner, size_hw, tail)

    def append(self, writer: GraphWriter, head: Head, tensors: tuple[str, ...], input_hw: tuple[int, int]) -> None:
        """The best class of each place, and how good it is if asked for."""
        assert isinstance(head, MaskHead), "made by recognise()"
        (tensor,) = tensors
        if head.tail is not None:
            self._append_best(writer, head, head.tail, tensor)
            return
        place = writer.reshape(tensor, (1, *head.size_hw), "places")
        if self.content == "ids":
            writer.op("Cast", place, name="mask", output="mask", to=TensorProto.UINT8)
            return
        limit = self.threshold
        if self.activation == "sigmoid" and not self.confidence:
            limit = float(np.log(limit / (1 - limit)))  # the sigmoid is monotonous: compare before it
        elif self.activation == "sigmoid":
            place = writer.op("Sigmoid", place, name="probability")
        found = writer.op("Greater", place, writer.constant(limit, np.float32, "threshold"), name="found")
        writer.op("Cast", found, name="mask", output="mask", to=TensorProto.UINT8)
        if self.confidence:
            rest = writer.op("Sub", writer.constant(1, np.float32, "one"), place, name="rest")
            _append_confidence(writer, writer.op("Where", found, place, rest, name="sure"))

    def canonical(self, head: Head) -> list[TensorInfo]:
        """The mask, and the confidence if asked for."""
        names = ["mask", "confidence"] if self.confidence else ["mask"]
        return [TensorInfo(name, "uint8", (1, *head.size_hw)) for name in names]

    def reference(self, raw: Mapping[str, NDArray[Any]], input_hw: tuple[int, int]) -> Arrays:
        """``mask`` uint8 ``[1, h, w]`` from the model's own output, and ``confidence`` of the same shape."""
        assert self.tensor is not None, "reference() belongs to the family of a Head"
        values = raw[self.tensor]
        if values.ndim == 3:
            planes = values[:, None]
        else:
            planes = values.transpose(0, 3, 1, 2) if self.layout == "nhwc" else values
        if self.content == "ids":
            return {"mask": planes[:, 0].astype(np.uint8)}
        scores = planes.astype(np.float64)
        if self.activation == "sigmoid":
            scores = 1 / (1 + np.exp(-scores))
        elif self.activation == "softmax":
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = powers / powers.sum(axis=1, keepdims=True)
        if scores.shape[1] == 1:
            mask = scores[:, 0] > self.threshold
            best = np.where(mask, scores[:, 0], 1 - scores[:, 0])
        else:
            mask, best = planes.argmax(axis=1), scores.max(axis=1)
        found = {"mask": mask.astype(np.uint8)}
        return found | {"confidence": np.rint(np.clip(best, 0, 1) * 255).astype(np.uint8)} if self.confidence else found

    def checked(self, info: TensorInfo) -> TensorInfo:
        """The same tensor if it holds float32 scores or whole numbers, of static shape."""
        if info.dtype not in {"float32", *_IDS} or info.static_shape is None:
            raise RecipeError(
                f"family segmentation: expected an output of fixed shape, float32 or whole numbers, found {info}"
            )
        return info

    def _append_best(self, writer: GraphWriter, head: Head, tail: MaskTail, scores: str) -> None:
        layout = tail.layout
        if tail.resize is not None:
            scores, layout = write_resize(writer, scores, tail.resize), "nhwc"
        axis = CLASS_AXIS[layout]
        if head.classes == 2 and layout == "nchw":  # a quarter of ArgMax's time at 512x512
            rest, thing = (
                writer.op("Gather", scores, writer.constant(index, np.int64, "class"), name=f"class_{index}", axis=1)
                for index in (0, 1)
            )
            best = writer.op("Greater", thing, rest, name="best_class")
        else:
            best = writer.op("ArgMax", scores, name="best_class", axis=axis, keepdims=0)
        writer.op("Cast", best, name="mask", output="mask", to=TensorProto.UINT8)
        if self.confidence:
            if self.activation == "softmax":
                scores = writer.op("Softmax", scores, name="softmax", axis=axis)
            strongest = writer.reduce_max(scores, axis, "strongest")
            if self.activation == "sigmoid":
                strongest = writer.op("Sigmoid", strongest, name="sigmoid")
            _append_confidence(writer, strongest)

    def _tail(self, model: onnx.ModelProto, output: str, layout: Layout, size_hw: tuple[int, int]) -> MaskTail:
        """Where decoding starts: confidences need the scores as they are."""
        if not self.coarse:
            whole = MaskTail(output, layout, size_hw, None, ())
            return whole if self.confidence else mask_tail(model, output, layout)
        tail = mask_tail(model, output, layout, coarse=True)
        if "Resize" not in tail.left_out:
            raise RecipeError("output.coarse: the model does not end in a Resize; leave it out")
        if self.confidence:
            raise RecipeError("output.coarse and output.confidence exclude each other; choose one")
        return tail

    def _layout(
        self, model: onnx.ModelProto, info: TensorInfo, input_hw: tuple[int, int], label_count: int
    ) -> tuple[Layout, int, tuple[int, int], str]:
        """Where the classes are: layout, channels, height and width of the mask, and by what rule."""
        shape = info.static_shape or ()
        if len(shape) not in (3, 4) or shape[0] != 1:
            raise self.mismatch(model)
        if len(shape) == 3:
            return "nchw", 1, (shape[1], shape[2]), f"shape of {info}"
        forms: dict[Layout, tuple[int, tuple[int, int]]] = {
            "nchw": (shape[1], (shape[2], shape[3])),
            "nhwc": (shape[3], (shape[1], shape[2])),
        }
        if self.layout != "auto":
            return self.layout, *forms[self.layout], "layout from the recipe"
        fitting = [name for name, (channels, _) in forms.items() if channels in (1, label_count)]
        if len(fitting) == 1:
            return fitting[0], *forms[fitting[0]], f"shape of {info} and the number of labels"
        alike = [name for name in fitting or forms if _same_proportions(forms[name][1], input_hw)]
        if len(alike) == 1:
            return alike[0], *forms[alike[0]], f"shape of {info} and the input's proportions"
        raise RecipeError(
            f"family segmentation: cannot tell classes from rows and columns in {describe([info])}, with {label_count} "
            f"labels and an input of {input_hw[1]}x{input_hw[0]}; set output.layout to nchw or nhwc"
        )

    def _content(
        self, info: TensorInfo, channels: int, values: NDArray[Any], label_count: int
    ) -> Literal["scores", "ids"]:
        if info.dtype != "float32" or self.content == "ids":
            possible = channels == 1 and self.content != "scores" and bool((values == np.rint(values)).all())
        else:
            # Of two classes, ids 0 and 1 are also probabilities, and a threshold reads both.
            whole = channels == 1 and bool((values == np.rint(values)).all())
            if self.content == "scores" or not whole or label_count == 2:
                return "scores"
            possible = True
        if not possible:
            raise RecipeError(
                f"family segmentation: expected class ids of one channel, whole numbers, or float32 scores, found "
                f"{info} with {_seen(values)}; correct output.content"
            )
        if values.min() < 0 or values.max() >= label_count:
            raise RecipeError(
                f"labels: expected a name for each class id of {info}, got {label_count}, but {_seen(values)}"
            )
        return "ids"

    def _activation(
        self, values: NDArray[np.float32], channels: int, layout: Layout
    ) -> Literal["softmax", "sigmoid", "none"]:
        in_range = bool(values.min() >= -_TOLERANCE and values.max() <= 1 + _TOLERANCE)
        if self.activation == "auto":
            return "none" if in_range else "softmax" if channels > 1 else "sigmoid"
        if self.activation == "none" and not in_range and (channels == 1 or self.confidence):
            raise RecipeError(f"output.activation: none needs probabilities, but {_seen(values)}; leave it out")
        if self.activation == "softmax" and channels == 1:
            raise RecipeError(
                "output.activation: softmax needs several classes, the output has one channel; use sigmoid"
            )
        if self.activation == "softmax" and in_range and self.confidence:
            axis = CLASS_AXIS[layout] + 1  # the probes are stacked in front
            if bool((np.abs(values.sum(axis=axis) - 1) < _TOLERANCE).all()):
                raise RecipeError(f"output.activation: softmax on top of probabilities: {_seen(values)}; use none")
        return self.activation


def _append_confidence(writer: GraphWriter, probability: str) -> None:
    """0..1 becomes ``confidence``, 0..255, rounded."""
    level = writer.op("Mul", probability, writer.constant(255, np.float32, "full"), name="level")
    rounded = writer.op("Round", level, name="rounded")
    writer.op("Cast", rounded, name="confidence", output="confidence", to=TensorProto.UINT8)


def _same_proportions(size_hw: tuple[int, int], input_hw: tuple[int, int]) -> bool:
    """Whether both are the same rectangle, but for the rounding of a coarser one."""
    return abs(size_hw[0] * input_hw[1] - size_hw[1] * input_hw[0]) <= max(input_hw)


def _seen(values: NDArray[Any]) -> str:
    return f"over {PROBES} random pictures the values lie in {values.min():.3g}..{values.max():.3g}"
