"""How much each rounding alone disturbs the network's answers: what the search leaves in float first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from build_models.quantize.simulate import Sites, noise_shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from build_models.progress import Progress
    from build_models.quantize.ranges import Ranges
    from build_models.quantize.simulate import Simulator


_TOGETHER = 6
_HEARD = 0.5  # of the mean group's noise


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One site of rounding, switched on alone.

    Attributes:
        site: name of the tensor, or of the node whose weight it is.
        kind: what is rounded there.
        nodes: all of them must run in float for this rounding to go away.
        noise: error power at the heads as a share of their power, mean over the heads.
    """

    site: str
    kind: Literal["activation", "weight"]
    nodes: frozenset[str]
    noise: float

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise at the heads, in decibels; at most 200."""
        return float(min(-10 * np.log10(max(self.noise, 1e-20)), 200.0))


def measure_sensitivities(
    simulator: Simulator, ranges: Ranges, images: Sequence[NDArray[np.uint8]], progress: Progress
) -> list[Sensitivity]:
    """Every site of the simulator, the loudest first.

    Neighbours are switched on together first; only groups that are heard are taken apart, in the others each site
    gets an equal part of the group's noise. So a network of 500 roundings needs some 150 looks.

    Args:
        simulator: its outputs are the heads.
        ranges: of its activations.
        images: uint8 ``[H, W, 3]``; a few are enough to rank.
        progress: shows how far it has come.
    """
    exact = [simulator.run(image, ranges) for image in images]

    def noise_of(sites: Sequence[_Site]) -> float:
        on = Sites(
            {site.name: site.nodes for site in sites if site.kind == "activation"},
            {site.name: site.weight for site in sites if site.kind == "weight"},
        )
        return float(noise_shares(exact, (simulator.run(image, ranges, on) for image in images)).mean())

    groups = _groups(simulator.sites)
    loudness = [noise_of(group) for group in progress.track(groups, len(groups), "group")]
    audible = sum(loudness) / max(len(groups), 1) * _HEARD
    found = []
    alone: list[_Site] = []
    for group, noise in zip(groups, loudness, strict=True):
        if len(group) > 1 and noise > audible:
            alone += group
        else:
            found += [Sensitivity(site.name, site.kind, site.nodes, noise / len(group)) for site in group]
    for site in progress.track(alone, len(alone), "rounding"):
        found.append(Sensitivity(site.name, site.kind, site.nodes, noise_of([site])))
    return sorted(found, key=lambda each: (-each.noise, each.site))


def exceptions_by_worth(sensitivities: Sequence[Sensitivity], costs: Mapping[str, float]) -> list[frozenset[str]]:
    """Groups of nodes to leave in float, one after the other, each the best of what is left.

    The worth of a group is the noise that goes away with it (with all groups before it in float too) over the
    arithmetic that becomes float: noise of independent roundings adds up.

    Args:
        sensitivities: of all sites.
        costs: arithmetic of each node, such as its multiply-accumulates; what is missing costs nothing.
    """
    sites_of: dict[str, list[int]] = {}
    for index, each in enumerate(sensitivities):
        for node in each.nodes:
            sites_of.setdefault(node, []).append(index)
    missing = [set(each.nodes) for each in sensitivities]  # what is not in float yet
    floor = 1e-3 * sum(costs.values()) / max(len(costs), 1)  # nothing is entirely free

    def worth(index: int) -> float:
        more = missing[index]
        near = {other for node in more for other in sites_of[node]}
        freed = sum(sensitivities[other].noise for other in sorted(near) if missing[other] <= more)
        return freed / (sum(costs.get(node, 0.0) for node in sorted(more)) + floor)

    worths = {index: worth(index) for index in range(len(sensitivities)) if missing[index]}
    order: list[frozenset[str]] = []
    while worths:
        best = max(worths, key=lambda index: (worths[index], -index))
        order.append(sensitivities[best].nodes)
        taken = frozenset(missing[best])
        touched = {index for node in taken for index in sites_of[node]}
        for index in touched:
            missing[index] -= taken
        # What shares a node that is still missing with one of these has another worth now.
        near = {other for index in touched for node in missing[index] for other in sites_of[node]}
        for index in touched | near:
            if missing[index]:
                worths[index] = worth(index)
            else:
                worths.pop(index, None)
    return order


@dataclass(frozen=True, slots=True)
class _Site:
    name: str
    kind: Literal["activation", "weight"]
    nodes: frozenset[str]
    weight: str = ""


def _groups(sites: Sites) -> list[list[_Site]]:
    """Neighbours of one kind, `_TOGETHER` each."""
    activations = [_Site(name, "activation", nodes) for name, nodes in sites.activations.items()]
    weights = [_Site(name, "weight", frozenset({name}), weight) for name, weight in sites.weights.items()]
    return [
        kind[start : start + _TOGETHER] for kind in (activations, weights) for start in range(0, len(kind), _TOGETHER)
    ]
