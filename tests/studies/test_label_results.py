"""Conclusions that are honest in either direction."""

import re
from io import StringIO

from rich.console import Console

from cae.config.choices import (
    FINE_TUNED,
    FROZEN,
    METHODS,
    RECIPE,
    SCRATCH,
    SELF_TRAINING,
    SPREADING,
    WITHOUT_AUTOENCODER,
    WITHOUT_UNLABELLED,
)
from cae.studies.label_results import Measurement, conclude, get_tables, summarize


def results_of(method, errors_by_labels):
    """Results with seeds from 0."""
    given = {"method": method, "validation_labels": 0, "steps": 0, "seconds": 0}
    return [
        Measurement(labels=n, per_class=str(n // 10), seed=seed, test_error=error, **given)
        for n, errors in errors_by_labels.items()
        for seed, error in enumerate(errors)
    ]


def compare(scratch, fine_tuned):
    return conclude(results_of(SCRATCH, scratch) + results_of(FINE_TUNED, fine_tuned))


def test_a_count_that_is_all_labels_counts_once():
    """With 50 images a class, `50` and `all` train on the same labels."""
    results = results_of(SCRATCH, {500: [0.1, 0.2]})
    same = [result.model_copy(update={"per_class": "all"}) for result in results]
    assert summarize(results + same)[SCRATCH][500].seeds == 2


def test_seeds_are_compared_in_pairs():
    """The seeds differ by far more than the methods do, and always in the same direction."""
    sentence, *_ = compare({100: [0.2, 0.4, 0.6]}, {100: [0.151, 0.35, 0.549]})
    numbers = re.findall(r"-?[\d.]*\d", sentence)
    assert "lowers" in sentence
    assert numbers == ["100", "40.00", "35.00", "-5.00", "95", "-5.25", "-4.75", "3"]


def test_where_it_helps_and_from_where_on_it_does_not():
    scratch = {10: [0.5, 0.6], 100: [0.2, 0.3], 1000: [0.1, 0.11], 5000: [0.05, 0.06]}
    tuned = {10: [0.4, 0.501], 100: [0.1, 0.201], 1000: [0.11, 0.10], 5000: [0.06, 0.05]}
    *_, helps, ends = compare(scratch, tuned)
    assert "lowers" in helps and "10 and 100 labels" in helps
    assert "1,000 labels" in ends and "no measurable difference" in ends


def test_where_it_harms():
    """Said as plainly, with nothing about more labels than were tried."""
    first, other = compare({100: [0.1, 0.2]}, {100: [0.1995, 0.3005]})
    assert "raises" in first and "from 15.00% to 25.00%" in first
    assert "raises" in other and "100 labels" in other


def test_no_difference_anywhere():
    sentences = compare({100: [0.1, 0.2]}, {100: [0.2, 0.1]})
    assert len(sentences) == 2 and all("no measurable difference" in x for x in sentences)


def test_one_seed_decides_nothing():
    values, advice = compare({50: [0.3]}, {50: [0.1]})
    assert "50 labels" in values and "30.00%" in values and "10.00%" in values
    assert "--seeds 5" in advice


def test_what_a_recipe_and_its_autoencoder_change():
    results = [
        *results_of(RECIPE, {100: [0.02, 0.03], 1000: [0.01, 0.02]}),
        *results_of(WITHOUT_UNLABELLED, {100: [0.1195, 0.1305]}),
        *results_of(WITHOUT_AUTOENCODER, {100: [0.0495, 0.0605]}),
        *results_of(SPREADING, {100: [0.09, 0.10], 1000: [0.07, 0.08]}),
        *results_of(SELF_TRAINING, {100: [0.19, 0.20]}),
    ]
    unlabelled, _, autoencoder, _, best = conclude(results)
    assert "without unlabelled images" in unlabelled
    assert "lowers the test error: from 12.50% to 2.50%, -10.00 percentage points" in unlabelled
    assert "autoencoder" in autoencoder and "from 5.50% to 2.50%, -3.00" in autoencoder
    assert "With 100 labels" in best and "label spreading" in best and "9.50%" in best


def test_without_both_networks_there_is_no_conclusion():
    (sentence,) = conclude(results_of(SCRATCH, {10: [0.1]}))
    assert "fine-tuned" in sentence and "scratch" in sentence


def test_a_recipe_alone_says_what_to_measure():
    sentence, *_ = conclude(results_of(RECIPE, {10: [0.1]}))
    assert WITHOUT_AUTOENCODER in sentence and WITHOUT_UNLABELLED in sentence


def test_the_table_has_a_row_for_each_number_of_labels():
    results = results_of(SCRATCH, {10: [0.5, 0.7], 1000: [0.05]}) + results_of(FROZEN, {10: [0.5]})
    (table,) = get_tables(summarize(results))
    cells = [list(column.cells) for column in table.columns]
    assert cells == [["10", "1,000"], ["50.0", ""], ["60.0 ≤100.0", "5.00"]]


def test_the_table_fits_a_terminal():
    """80 columns, all methods, nothing cut."""
    errors = {10: [0.5, 0.51], 60_000: [0.5, 0.49]}
    results = [result for method in METHODS for result in results_of(method, errors)]
    console = Console(file=StringIO(), width=80)
    for table in get_tables(summarize(results)):
        console.print(table)
    assert "…" not in console.file.getvalue()
    assert console.file.getvalue().count("50.5 ± 6.4") == len(METHODS)
    assert "60,000" in console.file.getvalue()


def test_a_count_with_one_seed_decides_nothing():
    """Whether it makes a difference with 5,000 labels is not known."""
    sentences = compare({100: [0.2, 0.3], 5000: [0.05]}, {100: [0.1, 0.2], 5000: [0.06]})
    assert not any("5,000" in sentence for sentence in sentences)
