"""What the zoo's networks do with published weights files: leave out what only training used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping


class Published(nn.Module):
    """A network whose published files hold entries that it has no use for.

    Attributes:
        training_only: how the names of such entries begin; they are left out, unless the network has the module.
    """

    training_only: ClassVar[tuple[str, ...]] = ()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch does it, without the entries that only training used."""
        own = self.state_dict()
        wanted = {
            name: value for name, value in state_dict.items() if name in own or not name.startswith(self.training_only)
        }
        return super().load_state_dict(wanted, strict, assign)
