"""Study files: what they may say, what is wrong in one, and which trials they make."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import AUTOENCODER, write_json

from cae.config.study import expand, load_stages
from cae.errors import ConfigurationError

STUDIES = Path(__file__).parents[2] / "configuration" / "studies"
STUDY = {
    "name": "tiny",
    "kind": "autoencoder",
    "data": {"dataset": "digits"},
    "bases": [{"configuration": "base.json"}],
    "metric": "val_mse",
}


@pytest.fixture
def write(tmp_path):
    """Writes a study beside the configuration that it begins with."""
    write_json(tmp_path / "base.json", AUTOENCODER)
    write_json(tmp_path / "other.json", AUTOENCODER, batch_size=8)

    def write(file="study.json", **changes):
        return write_json(tmp_path / file, STUDY, **changes)

    return write


def expand_file(path, data="data", models=None):
    _, (file,) = load_stages(path)
    return expand(file, data, models or {})


def lines_of(path):
    with pytest.raises(ConfigurationError) as caught:
        expand_file(path)
    return caught.value.lines


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_studies_are_valid(path):
    name, files = load_stages(path)
    assert name == path.stem
    for file in files:
        trials = expand(file, "data", {})
        assert len({trial.id for trial in trials}) == len(trials) > len(file.study.bases)


def test_the_original_research_is_shipped():
    """Three autoencoders with seven variations each, and five heads on the small and the large.

    All of them are screened, and some of each go on.
    """
    _, (autoencoders, classifiers) = load_stages(STUDIES / "research.json")
    screening, _ = autoencoders.rounds
    trials = expand(screening, "", {})
    assert len(trials) == 24
    names = {trial.id.split("-")[0] for trial in trials}  # in a study of autoencoders
    assert {"small", "medium_dropout"} < names
    assert len(expand(classifiers.rounds[0], "", {})) == 15
    assert len(classifiers.study.bases) == 5
    bases = {base.title for base in autoencoders.study.bases}
    assert {base.encoder.base for base in classifiers.study.bases} < bases


def test_a_trial_for_each_variation_change_and_seed(write):
    """Their order is that of the file, with the seeds together."""
    path = write(
        bases=[{"configuration": "base.json", "variations": ["other.json"]}],
        vary={"grid": {"learning_rate": [0.1, 0.2], "l2": [0.0, 0.5]}},
        seeds=[4, 7],
    )
    trials = expand_file(path)
    assert [trial.configuration for trial in trials[:4:2]] == [
        "base-learning_rate=0.1-l2=0.0",
        "base-learning_rate=0.1-l2=0.5",
    ]
    assert [trial.config.seed for trial in trials[:4]] == [4, 7, 4, 7]
    assert [trial.config.batch_size for trial in trials] == [16] * 8 + [8] * 8
    assert [trial.config.optimizer.learning_rate for trial in trials[:8:2]] == [0.1, 0.1, 0.2, 0.2]
    assert {trial.base for trial in trials} == {"base"}


def test_a_search_draws_the_same_values_again(write):
    """They lie in their range, and whole numbers stay whole."""
    rates, sizes = {"low": 0.001, "high": 0.1, "scale": "log"}, {"low": 4, "high": 9}
    search = {"learning_rate": rates, "batch_size": sizes}
    path = write(vary={"search": search, "samples": 40})
    trials = expand_file(path)
    assert trials == expand_file(path)
    rates = [trial.config.optimizer.learning_rate for trial in trials]
    assert len(set(rates)) == 40 and min(rates) >= 0.001 and max(rates) <= 0.1
    assert 10 < sum(rate < 0.01 for rate in rates) < 30  # half of them, on a logarithmic scale
    assert {trial.config.batch_size for trial in trials} == set(range(4, 10))


def test_whole_numbers_are_equally_likely(write):
    """Of 300 draws a hundred each; by rounding, the ends would be drawn 75 times."""
    search = {"batch_size": {"low": 1, "high": 3}, "learning_rate": {"low": 0.001, "high": 0.1}}
    trials = expand_file(write(vary={"search": search, "samples": 300}))
    counts = np.bincount([trial.config.batch_size for trial in trials])[1:]
    assert counts.sum() == 300 and counts.min() > 85


def test_an_identity_depends_on_all_that_the_result_does(write):
    """Configuration, data, seed, epochs and encoder; nothing else, so that trials are found."""
    base = {"configuration": "base.json", "variations": ["base.json"]}
    (first,) = expand_file(write(bases=[base], seeds=1))  # its own variation is trained once
    (renamed,) = expand_file(write(file="renamed.json", metric="val_loss"))
    assert renamed.id == first.id
    (other_data,) = expand_file(write(), data="other")
    (other_encoder,) = expand_file(write(), models={"base": ("model.keras", "sha")})
    (other_seed,) = expand_file(write(seeds=[1]))
    (longer,) = expand_file(write(epochs=9))
    (other_config,) = expand_file(write(bases=[{"configuration": "other.json"}]))
    others = [other_data, other_encoder, other_seed, longer, other_config]
    assert len({trial.digest for trial in [first, *others]}) == 6
    assert longer.config.epochs == 9


def test_one_configuration_in_two_bases(write):
    """On two encoders, for example: the names of the bases tell them apart."""
    bases = [{"name": name, "configuration": "base.json"} for name in ("a", "b")]
    bases[1]["variations"] = ["other.json"]
    models = {"a": ("a.keras", "1"), "b": ("b.keras", "2")}
    trials = expand_file(write(bases=bases), models=models)
    assert [trial.configuration for trial in trials] == ["a", "b", "b-other"]
    assert [trial.model for trial in trials] == ["a.keras", "b.keras", "b.keras"]


def test_trials_on_the_same_encoder_follow_each_other(write):
    """So that its encodings are computed once; otherwise the order is that of the file."""
    bases = [{"name": name, "configuration": "base.json"} for name in "abc"]
    models = {"a": ("1.keras", "1"), "b": ("2.keras", "2"), "c": ("1.keras", "1")}
    trials = expand_file(write(bases=bases, seeds=2), models=models)
    assert [trial.base for trial in trials] == ["a", "a", "c", "c", "b", "b"]


def test_a_screening_is_a_smaller_study_before(write):
    """Fewer images, fewer epochs and one seed, never more than the study itself has."""
    screening = {"finalists": 2, "limit": 100, "epochs": 3}
    path = write(seeds=[4, 5], epochs=9, screening=screening)
    _, (file,) = load_stages(path)
    first, second = (part.study for part in file.rounds)
    assert second == file.study
    assert (first.name, first.seeds, first.epochs) == ("tiny-screening", [4], 3)
    assert first.data.limit == 100 and first.screening is None
    path = write(epochs=2, data={"dataset": "digits", "limit": 50}, screening=screening)
    _, (file,) = load_stages(path)
    assert (file.rounds[0].study.epochs, file.rounds[0].study.data.limit) == (2, 50)
    _, (file,) = load_stages(write())
    assert file.rounds == [file]


def test_names_of_trials_are_names_of_folders(write):
    path = write(vary={"grid": {"augmentation": [None, {"rotation": 10.0, "shift": 0.2}]}})
    for trial in expand_file(path):
        assert trial.id == Path(trial.id).name and len(trial.id) < 120
        assert not set(trial.id) & set('/\\ "{}[]:')
    layers = [[["conv", filters, [3, 3]]] * 5 for filters in (1, 2)]
    path = write(vary={"grid": {"encoder_layers": layers, "batch_size": [1, 2]}})
    named = {trial.configuration for trial in expand_file(path)}
    assert len(named) == 4 and all(len(name) <= 80 for name in named)


BASE = {"configuration": "base.json"}
ENCODER = {"study": "c", "base": "d"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrik": "x"}, 'metrik: is not a known key, got "x". Did you mean'),
        ({"bases": []}, "bases: must have at least 1 item, got []"),
        ({"bases": {}}, "bases: must be a list, got {}"),
        ({"bases": [{}]}, "bases[0].configuration: is required"),
        ({"bases": [{"configuration": "gone.json"}]}, "gone.json: must be a configuration file"),
        ({"bases": [BASE] * 2}, 'bases: must have different names, not "base" twice'),
        ({"bases": [BASE | {"model": "b", "encoder": ENCODER}]}, 'either "encoder" or "model"'),
        ({"data": {"dataset": 3}}, "data.dataset: must be text in double quotes, got 3"),
        ({"data": {"dataset": "digits", "limit": 0}}, "data.limit: must be a whole number"),
        ({"kind": "encoder"}, 'kind: must be "autoencoder", "classifier" or "chain"'),
        ({"kind": "classifier"}, "metric: must be val_accuracy, val_f1 or val_loss"),
        ({"metric": "test_accuracy"}, "metric: must be val_mse or val_loss for studies of"),
        ({"name": "a/b"}, 'name: must be a name of letters, digits and "_.-"'),
        ({"seeds": []}, "seeds: must be a number of seeds from 1 to 10000, or a list of seeds"),
        ({"seeds": [-1]}, "seeds[0]: must be a whole number from 0 to 4294967295, got -1"),
        ({"epochs": 0}, "epochs: must be a whole number from 1 to 100000, got 0"),
        ({"screening": {"finalists": 1}}, 'screening: must have "limit" or "epochs"'),
        ({"vary": {}}, 'vary: must have either "grid" or "search"'),
        ({"vary": {"grid": {"seed": [1]}}}, 'vary: must not vary "seed"'),
        ({"vary": {"grid": {"epochs": [1, 2]}}, "epochs": 3}, "epochs: must be left out"),
        (
            {"vary": {"grid": {"epochs": [1]}}, "screening": {"finalists": 1, "epochs": 3}},
            "screening: must be left out where vary has epochs",
        ),
        ({"vary": {"grid": {"l2": [2]}}}, "vary (base-l2=2): l2: must be a number from 0 to 1"),
        ({"vary": {"grid": {"batchsize": [2]}}}, 'Did you mean "batch_size"?'),
        ({"vary": {"search": {"l2": {"low": 1, "high": 0}}}}, "vary.search.l2: must have a low"),
        (
            {"vary": {"search": {"l2": {"low": 0, "high": 1, "scale": "log"}}}},
            "vary.search.l2: must have a low end above 0",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(write, changes, said):
    (line,) = lines_of(write(**changes))
    assert said in line


def test_all_problems_come_at_once(write):
    """Those of the study's keys, then those of all varied values."""
    assert len(lines_of(write(seeds=[-1], name="", data={}))) == 3
    assert len(lines_of(write(vary={"grid": {"l2": [2, 3], "noise": [7]}}))) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{,}", "line 1, column 2: must be JSON"),
        ("[]", "must be an object"),
        (json.dumps(STUDY)[:-1] + ', "name": "b"}', "must occur once"),
    ],
)
def test_errors_of_syntax_are_those_of_configurations(tmp_path, text, said):
    (tmp_path / "study.json").write_text(text)
    assert said in lines_of(tmp_path / "study.json")[0]


def test_a_chain_has_studies_of_different_names(write, tmp_path):
    """A chain in a chain, or two studies in one folder, are refused."""
    write(file="first.json")
    chain = {"name": "all", "kind": "chain", "stages": ["first.json"]}
    path = write_json(tmp_path / "chain.json", chain)
    assert load_stages(path)[0] == "all"
    path = write_json(tmp_path / "twice.json", chain, stages=["first.json", "first.json"])
    assert "stages[1]: must have a name of its own" in lines_of(path)[0]
    write(file="first.json", screening={"finalists": 1, "epochs": 1})
    write(file="second.json", name="tiny-screening")
    path = write_json(tmp_path / "twice.json", chain, stages=["first.json", "second.json"])
    assert "stages[1]: must have a name of its own" in lines_of(path)[0]
    path = write_json(tmp_path / "nested.json", chain, stages=["chain.json"])
    assert "stages[0]: must be a study, got a chain" in lines_of(path)[0]
