"""Following a study whose trials come, change and end."""

import optuna
from optuna.trial import TrialState

from search.strategy.following import Following


def test_each_trial_is_told_until_it_was_told_to_be_over(storage_url: str) -> None:
    study = optuna.create_study(storage=storage_url)
    following = Following()
    assert following.changed(study) == []
    first, second = study.ask(), study.ask()
    assert [trial.number for trial in following.changed(study)] == [0, 1]
    study.tell(second, 1.0)
    study.enqueue_trial({})
    told = following.changed(study)
    assert [(trial.number, trial.state) for trial in told] == [
        (0, TrialState.RUNNING),
        (1, TrialState.COMPLETE),
        (2, TrialState.WAITING),
    ]
    study.tell(first, state=TrialState.FAIL)
    assert [(trial.number, trial.state.name) for trial in following.changed(study)] == [(0, "FAIL"), (2, "WAITING")]
    assert [trial.number for trial in following.changed(study)] == [2]
