"""Where workers run: in this process, in processes of this machine, or on Ray. The study's storage stays the truth.

Each engine has a function `prepare`, which finds out whether it can do what is asked before anything is written, and
returns the function that has a study's trials run.
"""

from collections.abc import Callable

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from search.progress import Watcher
from search.queue import counted, is_over

Run = Callable[[optuna.Study, RDBStorage, Watcher], None]


def follow(opened: optuna.Study, watcher: Watcher) -> Callable[[], None]:
    """Return a function that tells the watcher which trials others finished since it was called last."""

    def over() -> list[FrozenTrial]:
        return [trial for trial in counted(opened.get_trials(deepcopy=False)) if is_over(trial)]

    seen = {trial.number for trial in over()}

    def look() -> None:
        for trial in over():
            if trial.number not in seen:
                seen.add(trial.number)
                watcher.finished(trial)

    return look
