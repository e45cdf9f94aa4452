"""Search spaces whose values are suggested trial by trial, and what earlier starts have tried.

Without Ray, a study draws all values of a search at random before it starts. With Ray, Optuna
suggests them (`parallel`), and each suggestion becomes trials here. No Keras, no Ray.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from cae import terminal
from cae.config.load import load_config
from cae.config.study import StudyFile, Trial, expand, hyperparameters_of
from cae.config.study_schema import Base, Range, Vary
from cae.errors import UserError
from cae.studies.progress import Outcome, ProgressTable
from cae.studies.results import DONE, STOPPED, WAITING, TrialRecord, read_trials
from cae.studies.trials import StudyRun


@dataclass
class Space:
    """The search space of one configuration.

    Attributes:
        base: The base of the configuration.
        path: The configuration, as the study's file names it.
        suggestions: The values suggested so far, each with its trials, one per seed.
    """

    base: Base
    path: str
    suggestions: list[tuple[dict[str, Any], list[Trial]]] = field(default_factory=list)


class SearchRun(StudyRun):
    """A study of search spaces, one after the other.

    Attributes:
        spaces: One for each configuration of the study.
    """

    def expand(self) -> list[Trial]:
        """The trials of earlier starts whose values lie in the search space of today."""
        self.spaces = [
            Space(base, path)
            for base in self.study.bases
            for path in [base.configuration, *base.variations]
        ]
        try:
            self._records = {record.id: record for record in read_trials(self.folder).trials}
        except UserError:
            self._records = {}  # the first start
        trials: dict[str, Trial] = {}
        for record in self._records.values():
            values = self._read_values(record)
            for space in self.spaces if values and record.id not in trials else ():
                suggested = self.get_trials(space, values)
                if record.id in {trial.id for trial in suggested}:
                    space.suggestions.append((values, suggested))
                    trials |= {trial.id: trial for trial in suggested}
        return list(trials.values())

    def _read_values(self, record: TrialRecord) -> dict[str, Any] | None:
        """The values of a trial; None if it has not started, or lies outside the search space."""
        path = self.folder / "configuration" / f"{record.id}.json"
        try:
            config = load_config(path, self.study.kind).model_dump(mode="json")
        except UserError:
            return None
        values, search = hyperparameters_of(config), self.study.vary.search
        if all(drawn.low <= values[key] <= drawn.high for key, drawn in search.items()):
            return {key: values[key] for key in search}
        return None

    def get_trials(self, space: Space, values: dict[str, Any]) -> list[Trial]:
        """The trials of a configuration with other values: one per seed."""
        label = space.base.label_of(space.path)
        alone = {"name": label, "configuration": space.path, "variations": []}
        changes = {
            "bases": [space.base.model_copy(update=alone)],
            "vary": Vary(grid={key: [value] for key, value in values.items()}) if values else None,
        }
        file = StudyFile(self._file.path, self.study.model_copy(update=changes))
        trials = expand(file, self._data, {label: self._models[space.base.label]})
        return [trial._replace(base=space.base.label) for trial in trials]

    def add(self, trials: Iterable[Trial]) -> list[Outcome]:
        """Adds trials, with the results of those that are finished or were stopped early."""
        added = super().add(trials)
        for outcome in added:
            record = self._records.get(outcome.trial.id)
            if outcome.status == WAITING and record and record.status == STOPPED:
                outcome.status, outcome.reason = STOPPED, record.reason
                outcome.value = math.nan if record.value is None else record.value
        return added

    def open_progress(self) -> ProgressTable:
        """The table of the trials, those included that have not been suggested yet."""
        total = len(self.spaces) * self.study.vary.samples * len(self.study.seeds)
        return ProgressTable(
            terminal.ERR, self.study, self.outcomes, max(total, len(self.outcomes))
        )

    def has_work(self) -> bool:
        """Whether a trial waits, or there are values to suggest."""
        samples = self.study.vary.samples
        return super().has_work() or any(len(space.suggestions) < samples for space in self.spaces)

    def take_up(self, space: Space, values: dict[str, Any]) -> list[Trial]:
        """The trials of suggested values, recorded before they start."""
        values = {key: _round(value, self.study.vary.search[key]) for key, value in values.items()}
        trials = self.get_trials(space, values)
        known = {outcome.trial.id for outcome in self.outcomes}
        if trials[0].id not in known:
            space.suggestions.append((values, trials))
        self.add(trial for trial in trials if trial.id not in known)
        self.record()
        return trials

    def get_value(self, trials: Iterable[Trial]) -> float | None:
        """The mean metric of finished trials, or the last value of stopped ones; None without."""
        first, *others = self.get_outcomes(trials)
        if first.status == STOPPED:
            others = []
        outcomes = [first, *others]
        value = fmean(outcome.value for outcome in outcomes)
        is_known = all(outcome.status in (DONE, STOPPED) for outcome in outcomes)
        return value if is_known and math.isfinite(value) else None


def _round(value: float, drawn: Range) -> float:
    """A value with digits that people can read and type again, still in its range."""
    if isinstance(value, int):
        return value
    return min(max(float(f"{value:.4g}"), drawn.low), drawn.high)
