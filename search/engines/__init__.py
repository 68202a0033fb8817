"""Where workers run: in this process, in processes of this machine, or on Ray. The study's storage stays the truth.

Each engine has a function `prepare`, which finds out whether it can do what is asked before anything is written, and
returns the function that has a study's trials run.
"""

from collections.abc import Callable

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from search import storage as store
from search.progress import Watcher
from search.queue import Queue, counted, is_over

Run = Callable[[optuna.Study, RDBStorage, Watcher], None]


def follow(queue: Queue, watcher: Watcher) -> Callable[[], None]:
    """Return a function that gives back what dead workers held, and tells which trials ended since its last call."""

    def over() -> list[FrozenTrial]:
        return [trial for trial in counted(queue.opened.get_trials(deepcopy=False)) if is_over(trial)]

    seen = {trial.number for trial in over()}

    def look() -> None:
        store.patiently(queue.give_back, watcher.told)
        for trial in store.patiently(over, watcher.told):
            if trial.number not in seen:
                seen.add(trial.number)
                watcher.finished(trial)

    return look
