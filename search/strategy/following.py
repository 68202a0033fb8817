"""A study's trials, each of them looked at anew only until it is over."""

import optuna
from optuna.trial import FrozenTrial


class Following:
    """Tells which trials may have changed, so that what is known of a large study need not be found anew each time."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._seen = 0

    def changed(self, study: optuna.Study) -> list[FrozenTrial]:
        """Return, in the order of their numbers, the trials that are new or were not finished the last time."""
        trials = study.get_trials(deepcopy=False)
        found = [trials[number] for number in self._open] + trials[self._seen :]
        self._open = [trial.number for trial in found if not trial.state.is_finished()]
        self._seen = len(trials)
        return found
