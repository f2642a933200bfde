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
    noises = np.array([each.noise for each in sensitivities])
    order: list[frozenset[str]] = []
    taken: set[str] = set()
    waiting = list(range(len(sensitivities)))
    floor = 1e-3 * sum(costs.values()) / max(len(costs), 1)  # nothing is entirely free
    while waiting:
        best, best_worth = waiting[0], -1.0
        for index in waiting:
            more = sensitivities[index].nodes - taken
            freed = noises[index] + sum(
                noises[other] for other in waiting if other != index and sensitivities[other].nodes <= more | taken
            )
            worth = freed / (sum(costs.get(node, 0.0) for node in more) + floor)
            if worth > best_worth:
                best, best_worth = index, worth
        taken |= sensitivities[best].nodes
        order.append(frozenset(sensitivities[best].nodes))
        waiting = [index for index in waiting if not sensitivities[index].nodes <= taken]
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
