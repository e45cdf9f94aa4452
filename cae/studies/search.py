"""Studies whose values Optuna suggests while they run, and what earlier starts have tried.

Without Ray, a study draws all values of a search at random before it starts. With Ray, each
suggestion of `parallel` becomes one trial per seed here. No Keras, no Ray.
"""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from cae.config.load import load_config
from cae.config.study import StudyFile, Trial, expand, hyperparameters_of
from cae.config.study_schema import Base, Vary
from cae.errors import UserError
from cae.records.run import CHECKPOINT_FILE, get_partial
from cae.studies.results import DONE, STOPPED, WAITING, TrialRecord, read_trials
from cae.studies.trials import StudyRun


@dataclass
class Space:
    """The search space of one configuration, and the values suggested so far."""

    base: Base
    path: str  # of the configuration, as the study's file names it
    # Id of the first trial -> the values, and their trials, one per seed.
    suggestions: dict[str, tuple[dict[str, Any], list[Trial]]] = field(default_factory=dict)


class SearchRun(StudyRun):
    """A study of search spaces, one after the other.

    Attributes:
        spaces: One for each configuration of the study.
    """

    def expand(self) -> list[Trial]:
        """The trials of earlier starts whose values lie in the search space of today."""
        paths = [(base, path) for base in self.study.bases for path in base.paths]
        self.spaces = [Space(base, path) for base, path in paths]
        self._records: dict[str, TrialRecord] = {}
        with suppress(UserError):  # the first start
            self._records = {record.id: record for record in read_trials(self.folder).trials}
        trials: dict[str, Trial] = {}
        for trial_id in self._records:
            values = self._read_values(trial_id)
            for space in self.spaces if values and trial_id not in trials else ():
                suggested = self.get_trials(space, values)
                if trial_id in [trial.id for trial in suggested]:
                    space.suggestions[suggested[0].id] = values, suggested
                    trials |= {trial.id: trial for trial in suggested}
        return list(trials.values())

    def _read_values(self, trial_id: str) -> dict[str, Any] | None:
        """The values of a trial; None if it has not started, or lies outside the search space."""
        try:
            path = self.folder / "configuration" / f"{trial_id}.json"
            config = load_config(path, self.study.kind).model_dump(mode="json")
        except UserError:
            return None
        values, search = hyperparameters_of(config), self.study.vary.search
        for key, drawn in search.items():
            if values[key] is None or not drawn.low <= values[key] <= drawn.high:
                return None
        return {key: values[key] for key in search}

    def get_trials(self, space: Space, values: dict[str, Any]) -> list[Trial]:
        """The trials of a configuration with other values: one per seed."""
        title = space.base.title_of(space.path)
        alone = {"name": title, "configuration": space.path, "variations": []}
        changes = {
            "bases": [space.base.model_copy(update=alone)],
            "vary": Vary(grid={key: [value] for key, value in values.items()}) if values else None,
        }
        file = StudyFile(self._file.path, self.study.model_copy(update=changes))
        trials = expand(file, self._data, {title: self._models[space.base.title]})
        return [replace(trial, base=space.base.title) for trial in trials]

    def add(self, trials: Iterable[Trial]) -> None:
        """Adds trials, with the results of those that are finished or were stopped early."""
        super().add(trials)
        for outcome in self.outcomes:
            record = self._records.get(outcome.trial.id)
            if outcome.status == WAITING and record and record.status == STOPPED:
                outcome.status, outcome.reason = STOPPED, record.reason
                outcome.value = math.nan if record.value is None else record.value

    @property
    def total(self) -> int:
        """How many trials there will be, those included that have not been suggested yet."""
        suggested = len(self.spaces) * self.study.vary.samples * len(self.study.seeds)
        return max(suggested, len(self.outcomes))

    def take_up(self, space: Space, values: dict[str, Any]) -> list[Trial]:
        """The trials of suggested values, recorded before they start."""
        search = self.study.vary.search
        values = {key: search[key].tidy(value) for key, value in values.items()}
        trials = self.get_trials(space, values)
        if trials[0].id not in space.suggestions:
            space.suggestions[trials[0].id] = values, trials
            self.add(trials)
            self.record()
        return trials

    def divide(
        self, space: Space
    ) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], float | None]]]:
        """The values suggested so far whose trials wait, and the others with their mean metric."""
        waiting, finished = [], []
        for values, trials in space.suggestions.values():
            if any(outcome.status == WAITING for outcome in self.get_outcomes(trials)):
                waiting.append(values)
            else:
                finished.append((values, self.get_value(trials)))
        return waiting, finished

    def stop(self, trials: Iterable[Trial], value: float) -> None:
        """Marks trials as stopped early; the first of them had reached `value`."""
        for outcome in self.get_outcomes(trials):
            outcome.status, outcome.reason = STOPPED, "other trials were better"
            outcome.value = value
            value = math.nan
            if self.args.keep == "best":
                run = get_partial(self.folder / outcome.trial.id)
                (run / CHECKPOINT_FILE).unlink(missing_ok=True)

    def get_value(self, trials: Iterable[Trial]) -> float | None:
        """The mean metric of finished trials, or the last value of stopped ones; None without."""
        first, *others = self.get_outcomes(trials)
        outcomes = [first] if first.status == STOPPED else [first, *others]
        value = fmean(outcome.value for outcome in outcomes)
        is_known = all(outcome.status in (DONE, STOPPED) for outcome in outcomes)
        return value if is_known and math.isfinite(value) else None
