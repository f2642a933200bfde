"""The report's section on what is inside the int8 files: each layer's signal to noise, and the kernels of this CPU."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from build_models.markup import Html, join, tag
from build_models.report_facts import counts, figure, table
from build_models.report_plots import layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WEAKEST = 10


def inside(content: Mapping[str, Any]) -> Html:
    """A part for each file that a search took."""
    found = content["stages"].get("search", {}).get("variants", {})
    looks = {name: each["inside"] for name, each in found.items() if each.get("inside")}
    modules = content["stages"].get("source", {}).get("modules") or {}
    parts: list[Html] = []
    for name, told in looks.items():
        same = next((each for each, other in looks.items() if other.get("layers") == told.get("layers")), name)
        shown = tag("p", f"Its layers are as those of {same}.") if same != name else _layers(name, told, modules)
        part = join(shown, _kernels(told.get("kernels"), content["cpu"]))
        parts += [tag("h3", name), part] if part else []
    return tag("section", tag("h2", "Inside the int8 files"), *parts) if parts else Html()


def _layers(name: str, told: Mapping[str, Any], modules: Mapping[str, str]) -> Html:
    signals: Sequence[Mapping[str, Any]] = told.get("layers", [])
    if not signals:
        return Html()
    plot = layers(f"layers-{name}", [each["node"] for each in signals], [each["sqnr_db"] for each in signals])
    weakest = sorted(signals, key=lambda each: each["sqnr_db"])[:_WEAKEST]
    rows = [
        [each["node"], f"{each['sqnr_db']:.2f} dB", modules.get(each["node"]) or each["op_type"]] for each in weakest
    ]
    said = (
        f"Power of each layer's float output over the power of its int8 error, {len(signals)} layers, "
        f"{told.get('pictures', 0)} search pictures. Where it falls, accuracy is lost; below 0 dB the error is larger "
        "than the signal."
    )
    beside = tag(
        "div",
        tag("p", said),
        tag("h4", f"The {len(rows)} weakest" if len(rows) > 1 else "The weakest"),
        table(["layer", "", "module" if modules else "kind"], rows),
    )
    return tag("div", figure("Signal to noise per layer", plot), beside, class_="split")


def _kernels(told: Mapping[str, Any] | None, cpu: str) -> Html:
    if not told:
        return Html()
    islands = Counter(", ".join(island) for island in told.get("float_islands", []))
    text = (
        f"What ONNX Runtime makes of the file on {cpu}: {told['nodes']} nodes, {told['integer']} of them compute in "
        f"int8, {told['float_convolutions']} convolutions in float; {told['quantise']} changes to int8, "
        f"{told['dequantise']} back."
    )
    if islands:
        each = "; ".join(f"{ops} ({count}x)" if count > 1 else ops for ops, count in islands.items())
        text += f" In float between int8, at the price of both changes: {each}."
    else:
        text += " Nothing computes in float between int8."
    return join(tag("h4", "Kernels on this CPU"), tag("p", text), counts(told["operators"]))
