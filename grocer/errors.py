"""What can be the user's mistake, as a hierarchy.

    GrocerError             exit code 2, one line on stderr, no traceback
     ├─ ConfigError         a recipe, a `--set` key or a value
     ├─ SourceError         data that can't be found, reached or read
     ├─ TableError          a table with the wrong columns, types or content
     ├─ ExpectationError    expectations that the data did not meet
     ├─ CatalogueError      too few products or departments to learn from
     ├─ ModelError          a base or an adapter that doesn't fit
     ├─ TrainingError       a training run that had to stop
     ├─ BundleError         a bundle that must not be served
     ├─ ArtifactError       a stage's output that is missing, outdated or invalid
     ├─ OutputError         a place that can't be written
     ├─ DeployError         a rollout that did not come up
     └─ StepError           a pipeline step that ended with one of the above

Every message says what was wrong, where, the limit, and the next step. Anything else that
escapes is our bug and ends with exit code 1 and its traceback.
"""

from collections.abc import Sequence


class GrocerError(Exception):
    """A mistake that the user can mend; `str(error)` is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ConfigError(GrocerError):
    """A recipe, a key or a value that does not exist or does not fit."""


class SourceError(GrocerError):
    """Data that can't be found, reached or read."""


class TableError(GrocerError):
    """A table whose columns, types or content are not what the schema says."""


class ExpectationError(GrocerError):
    """Expectations that the data did not meet."""


class CatalogueError(GrocerError):
    """A catalogue with too little in it to learn departments from."""


class ModelError(GrocerError):
    """A base model or an adapter that can't be used here."""


class TrainingError(GrocerError):
    """A training run that had to stop."""


class BundleError(GrocerError):
    """A bundle that must not be served: touched, refused by the gate, or of another base."""


class ArtifactError(GrocerError):
    """A stage's output that is missing, of another schema version, or invalid."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems) or [message]
        """One line for each invalid value."""


class OutputError(GrocerError):
    """A place that can't be written, or that holds something already."""


class DeployError(GrocerError):
    """A rollout that did not come up."""


class StepError(GrocerError):
    """A pipeline step ended with a user's mistake; the message is the step's own."""
