"""Every error that RisKVA raises on purpose, and the exit status that each one ends the command with.

    RiskvaError                     (Exception)          1
    ├── RecipeError                 (ValueError)         2   the recipe or the call is wrong; nothing was started
    ├── OutputFolderError           (FileExistsError)    2   the output folder holds something else
    │   └── NothingLeftToTrain      (FileExistsError)    2   the checkpoint to go on from is at its last step
    ├── DataError                   (ValueError)         1   a table, a data set or a row is wrong
    │   ├── MissingDataError        (FileNotFoundError)  1   a file or folder that the recipe names is not there
    │   ├── ImageError              (ValueError)         1   a photo cannot be read or used
    │   ├── TooManyBadRowsError     (ValueError)         1   more rows are bad than the recipe allows
    │   └── AuditError              (ValueError)         1   the audit found errors and the recipe is strict
    ├── ReportError                 (ValueError)         1   a report does not fit its format
    │   └── UnknownLevelError       (ValueError)         1   a risk level is none of the three
    ├── ModelError                  (OSError)            1   a model is missing, unreadable or of another kind
    │   └── ExportCheckError        (OSError)            1   the exported model does not answer as base + adapter does
    ├── DivergedError               (ArithmeticError)    1   the loss is no longer a number
    ├── SomeRowsFailed              (RuntimeError)       3   finished, but some rows failed; a file lists them
    └── StoppedBySignal             (KeyboardInterrupt) 75   stopped after saving; the same command resumes

Each is also an error of the standard library, so that a caller who knows nothing of RisKVA can still catch it.
A message says what is wrong, where (file, row, key) and what to do about it.
"""

from __future__ import annotations


class RiskvaError(Exception):
    """The root of the tree; `exit_code` is the status that `riskva-run` ends with.

    `is_told_elsewhere` is set where another process of the same run says it.
    """

    exit_code = 1
    is_told_elsewhere = False


class RecipeError(RiskvaError, ValueError):
    """The recipe or the command line is wrong; the message lists every fault with its line."""

    exit_code = 2


class OutputFolderError(RiskvaError, FileExistsError):
    """The output folder holds something that this run would overwrite or mix with."""

    exit_code = 2


class NothingLeftToTrain(OutputFolderError):
    """The checkpoint that a run goes on from is already at its last step."""


class DataError(RiskvaError, ValueError):
    """A table, a data set or one of its rows is wrong."""


class MissingDataError(DataError, FileNotFoundError):
    """A file or folder that the recipe names is not there."""


class ImageError(DataError):
    """A photo cannot be read or used; `reason` is the short code that summaries count by."""

    def __init__(self, message: str, reason: str = "image_unreadable") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Both arguments: the error crosses from one process to another."""
        return type(self), (str(self), self.reason)


class TooManyBadRowsError(DataError):
    """More rows are bad than `max_bad_share` allows."""


class AuditError(DataError):
    """The audit of a data set found errors, and the recipe is strict."""


class ReportError(RiskvaError, ValueError):
    """A report does not fit its format."""


class UnknownLevelError(ReportError):
    """A risk level is none of 轻微, 中等, 严重."""


class ModelError(RiskvaError, OSError):
    """A model or an adapter is missing, unreadable or of a kind that RisKVA does not train."""


class ExportCheckError(ModelError):
    """The exported model does not answer as base + adapter does."""


class DivergedError(RiskvaError, ArithmeticError):
    """The loss is no longer a number: nothing that is trained from here on is of use."""


class SomeRowsFailed(RiskvaError, RuntimeError):
    """The job finished, and some rows failed; the message names the file that lists them."""

    exit_code = 3


class StoppedBySignal(RiskvaError, KeyboardInterrupt):
    """Stopped on SIGTERM after saving; the same command resumes.

    No InterruptedError: that is an OSError, and whoever asks whether a file is there takes an OSError for a no.
    """

    exit_code = 75
