"""A round under secure aggregation, as the server sees it: keys, then answers, then their sum."""

from fedkd.errors import BudgetError, QuorumError
from fedkd.exchange.messages import Broadcast
from fedkd.federation import secure
from fedkd.federation.answers import Answers, require_quorum
from fedkd.federation.cohort import Connected, ask
from fedkd.federation.prepare import PreparedExperiment


def ask_for_sum(clients: Connected, cohort: list[int], broadcast: Broadcast, round: int) -> Answers:
    """As `cohort.ask`, in two messages; what comes back has the sum of all answers.

    Who does not answer the first message is left out, as long as a quorum does. Who answers the
    first and not the second costs the round: nothing can be made of a part of the sum.

    Raises:
        QuorumError: too few answered the first message, or not all of these the second.
        BudgetError: likewise, where privacy budgets are among the reasons.
        FederationError: the masks do not cancel.
    """
    prepared = clients.prepared
    keyed = ask(clients, cohort, Broadcast(), round, action=secure.ACTION)
    require_quorum(prepared, round, keyed)
    roster = list(keyed.uploads)
    keyed_broadcast = secure.with_roster(broadcast, keyed.uploads)
    answers = ask(clients, roster, keyed_broadcast, round)
    _require_all(prepared, round, answers)
    answers.cohort = cohort
    answers.failures |= keyed.failures
    answers.bytes_up += keyed.bytes_up
    answers.bytes_down += keyed.bytes_down
    plain = prepared.method.expects(prepared.setting, roster[0])
    answers.total = secure.total(answers.uploads, plain)
    return answers


def _require_all(prepared: PreparedExperiment, round: int, answers: Answers) -> None:
    if not answers.failures:
        return
    why = ", ".join(f"client {client} ({reason})" for client, reason in answers.failures.items())
    how = (
        "with --resume and the same clients; a new run without the lost ones would bare them, if "
        "their answers came after all"
    )
    if prepared.experiment.privacy.unit == "record":
        how = "with --resume; who answered has paid and pays anew: see privacy.spare_rounds"
    error = BudgetError if answers.refused else QuorumError
    raise error(
        f"round {round}: lost after the keys were exchanged: {why}; secure aggregation needs all "
        f"of the {len(answers.cohort)} answers, since a part of the sum tells nothing: run again "
        f"{how}"
    )
