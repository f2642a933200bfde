"""Tiny ONNX files written without the onnx package, so the device side's tests need only what a device has.

The field numbers are those of ``onnx.proto``; protobuf itself is a tag (field number, wire type) before each value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DATA_TYPES = {"float32": 1, "uint8": 2, "int64": 7}
_INT, _INTS = 2, 7  # AttributeProto.AttributeType
_EXTERNAL = 1  # TensorProto.DataLocation


def model(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    initializers: Sequence[bytes] = (),
    opset: int = 17,
) -> bytes:
    """A ModelProto of one graph."""
    graph = b"".join(
        [
            *(_bytes(1, each) for each in nodes),
            _text(2, "tiny"),
            *(_bytes(5, each) for each in initializers),
            *(_bytes(11, each) for each in inputs),
            *(_bytes(12, each) for each in outputs),
        ]
    )
    return _integer(1, 8) + _bytes(7, graph) + _bytes(8, _text(1, "") + _integer(2, opset))


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | list[int]) -> bytes:
    """A NodeProto; attributes are integers or lists of integers."""
    names = [_text(1, name) for name in inputs] + [_text(2, name) for name in outputs]
    return b"".join(
        [*names, _text(4, operator), *(_bytes(5, _attribute(name, value)) for name, value in attributes.items())]
    )


def tensor(name: str, array: NDArray[Any]) -> bytes:
    """A TensorProto with the array's values."""
    return _tensor_head(name, array.shape, str(array.dtype)) + _bytes(9, array.tobytes())


def external_tensor(name: str, shape: Sequence[int], dtype: str, location: str) -> bytes:
    """A TensorProto whose values lie in another file."""
    entry = _text(1, "location") + _text(2, location)
    return _tensor_head(name, shape, dtype) + _bytes(13, entry) + _integer(14, _EXTERNAL)


def value(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    """A ValueInfoProto: an input or output; a size may be a name, which makes it dynamic."""
    sizes = [_bytes(1, _text(2, size) if isinstance(size, str) else _integer(1, size)) for size in shape]
    tensor_type = _integer(1, DATA_TYPES[dtype]) + _bytes(2, b"".join(sizes))
    return _text(1, name) + _bytes(2, _bytes(1, tensor_type))


def _tensor_head(name: str, shape: Sequence[int], dtype: str) -> bytes:
    return b"".join([*(_integer(1, side) for side in shape), _integer(2, DATA_TYPES[dtype]), _text(8, name)])


def _attribute(name: str, content: int | list[int]) -> bytes:
    if isinstance(content, int):
        return _text(1, name) + _integer(3, content) + _integer(20, _INT)
    return b"".join([_text(1, name), *(_integer(8, each) for each in content), _integer(20, _INTS)])


def _text(field: int, content: str) -> bytes:
    return _bytes(field, content.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(content)) + content


def _integer(field: int, number: int) -> bytes:
    return _tag(field, 0) + _varint(number)


def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(number: int) -> bytes:
    number &= 2**64 - 1  # negative numbers take ten bytes
    result = bytearray()
    while number >= 0x80:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)
