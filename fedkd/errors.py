"""Everything that fedkd raises on purpose.

    FedkdError                  exit 1: the run failed
    ├── UsageError              exit 2: the caller's mistake
    │   ├── ConfigError         a key, a value or a combination in the experiment
    │   ├── DataError           a data set that is missing, corrupt or does not fit
    │   └── RunFolderError      a run folder that exists, is missing, damaged or does not match
    ├── StorageError            exit 2: a file of fedkd's own that the machine does not store
    ├── FederationError         the federation cannot go on
    │   ├── QuorumError         too few clients answered a round
    │   ├── MessageError        a message that is not what was agreed
    │   └── PolicyError         a site does not allow an experiment
    ├── ExportError             a student that another format does not give back
    ├── PrivacyViolationError   exit 3: an audit found more leakage than was claimed
    └── BudgetError             exit 4: a privacy budget does not allow it
        ├── UnpaidError         private data that a method would use or send unpaid
        └── LedgerError         a ledger that was changed, cut, rolled back or lost its key

Every message is one line that names the thing, its value, what was expected and the remedy.
"""


class FedkdError(Exception):
    """The base of every error that fedkd raises on purpose."""

    exit_status = 1


class UsageError(FedkdError):
    """The caller's mistake: nothing was run and nothing was written."""

    exit_status = 2


class ConfigError(UsageError):
    """A key, a value or a combination of values in the experiment's configuration."""


class DataError(UsageError):
    """A data set that is missing, corrupt or does not fit the experiment."""


class RunFolderError(UsageError):
    """A run folder that exists already, is missing or damaged, or is another experiment's."""


class StorageError(FedkdError):
    """A file that fedkd keeps cannot be read or written, or is not what was written.

    A full or read-only disk, say. It is never a client's failure: in a simulation it ends the run.
    """

    exit_status = 2


class FederationError(FedkdError):
    """The federation cannot go on."""


class QuorumError(FederationError):
    """Fewer clients answered a round than the quorum asks for."""


class MessageError(FederationError):
    """A message that is not what sender and receiver agreed on."""


class PolicyError(FederationError):
    """A site's own policy does not allow what an experiment asks of it.

    Attributes:
        key: the line of SITE.toml that refused, such as `"limits.rounds"`; the server is told it,
            and nothing else of the message.
    """

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class ExportError(FedkdError):
    """A student that cannot be written in another format, or comes out of it as another."""


class PrivacyViolationError(FedkdError):
    """An audit measured more leakage than the claim allows."""

    exit_status = 3


class BudgetError(FedkdError):
    """A privacy budget does not allow what was asked."""

    exit_status = 4


class UnpaidError(BudgetError):
    """Private data that a method would touch or send without an event that pays for it."""


class LedgerError(BudgetError):
    """A ledger of spent privacy that cannot be believed, so that nothing may be spent by it."""
