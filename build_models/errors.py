"""The build side's own branches of the error tree (``agent/errors.py``).

EdgeAgentError
├── BuildError                exit 1   the build cannot go on: the model is wrong, a check failed
└── ConfigError
    └── RecipeError           exit 2   the user must change the recipe, an argument or a file
"""

from __future__ import annotations

from agent.errors import ConfigError, EdgeAgentError


class BuildError(EdgeAgentError):
    """The build cannot go on: a stage met a model it must not ship, or its check failed."""


class RecipeError(ConfigError):
    """The user must change the recipe, an argument or a file that they name."""
