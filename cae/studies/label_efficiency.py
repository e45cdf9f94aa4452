"""Measures what pretraining and recipes are worth at each number of labels, beside baselines.

python experiments.py label-efficiency -d mnist -model models/small.keras
python experiments.py label-efficiency -d mnist --counts 10

The rules are those of Oliver et al. 2018, "Realistic evaluation of deep semi-supervised learning
algorithms", arXiv:1804.09170: equal labels, validation labels included, and equal budgets.
"""

import argparse
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.text import Text

from cae import files, terminal
from cae.config.choices import (
    ALL,
    COUNTS,
    METHODS,
    MOST_EPOCHS,
    PRETRAINING_METHODS,
    RECIPE,
    RECIPE_METHODS,
    WITHOUT_AUTOENCODER,
)
from cae.config.json_text import load_record
from cae.config.load import Recipe, add_new_keys, choose_recipe, load_config, load_recipe
from cae.config.schema import CONFIGS, ClassifierConfig
from cae.config.shipped import find_recipe, get_recipes
from cae.data import splits
from cae.data.datasets import check_dataset, get_scaling, join, load_dataset
from cae.data.sources import has_test
from cae.errors import ConfigurationError, DataError, UsageError, UserError, counted, shown
from cae.foreign.models import load_encoder
from cae.programs import images, starting_points
from cae.programs.start import StopSignal
from cae.records.environment import describe_environment
from cae.records.evaluation import Estimate
from cae.records.run import check_runs_dir
from cae.studies import label_results
from cae.studies.label_baselines import VALIDATION_SHARE, LabelledData
from cae.studies.label_methods import (
    ENCODING,
    FOLLOWING,
    ON_ENCODINGS,
    Autoencoders,
    Interrupted,
    Methods,
    dump_recipe,
)
from cae.studies.label_results import Measurement
from cae.studies.progress import format_duration
from cae.training.predict import sharing_encodings

Key = tuple[int, str, str]  # seed, labels per class, method
# The files of a comparison and what they hold, for docs/reference.md.
FILES = {
    "results.csv": "one row per method, number of labels and seed: labels in all and for "
    "validation, steps, images seen, test error, seconds; those of a recipe's autoencoder, which "
    "other rows share, stand apart, while its steps and images are included",
    "summary.csv": "means over seeds and the ends of their 95 % intervals; an end that would lie "
    "below 0 or above 1 stands there, and `open` names it",
    "conclusion.txt": "the sentences printed at the end",
    "label_efficiency.png": "the figure",
    "order_<seed>.json": "the order of the images from which all subsets of a seed are taken, with "
    "its SHA-256 and that of the data",
    "autoencoder_<hash>_<seed>.keras": "the autoencoder of a recipe, named by its hyperparameters; "
    "recipes that have the same one share it",
    "environment.json": "command, versions, git commit and data files of the latest start",
    "settings.json": "what the results depend on; a start with other settings is refused",
}


def run(args: argparse.Namespace) -> int:
    """Measures what is missing, then shows and saves the comparison.

    Returns:
        The exit code: 0, 2 when a training failed, or 128 plus the signal that stopped it.
    """
    config = load_config(args.config, "classifier")
    methods = args.methods or list(PRETRAINING_METHODS if args.model else RECIPE_METHODS)
    recipes = _read_recipes(args, methods)
    _check_files(args, recipes)
    terminal.announce("Reading and comparing images")
    data = _load_data(args)
    counts = choose_counts(data, args.counts)
    chosen = _choose_recipes(recipes, counts, data)
    for recipe in chosen.values() if {RECIPE, WITHOUT_AUTOENCODER} & set(methods) else ():
        recipe.classifier.check_unlabelled(num_unlabelled=1)  # before its autoencoder trains
    settings = _describe_settings(args, config, data, chosen)
    name = "label-efficiency" if args.model else "recipes"
    folder = check_runs_dir(Path(args.runs_dir, args.name or f"{name}-{data.training.name}"))
    with files.locked(folder):
        _keep_settings(folder / "settings.json", settings)
        environment = describe_environment(args.command, data.datasets, device=None, seed=None)
        files.write_json(folder / "environment.json", environment)
        labels, digest = data.training.labels, settings["data"]
        orders = [
            splits.keep_order(folder / f"order_{seed}.json", labels, seed, digest)
            for seed in range(args.seeds)
        ]
        path = folder / "results.csv"
        results = label_results.read_results(path) if path.exists() else []
        encoder = args.model and partial(
            load_encoder,
            args.model,
            data.training.images.shape[1:],
            until=args.encoder_until,
            input_range=args.model_input_range,
            say=terminal.say,
        )
        keys = itertools.product(range(args.seeds), counts, methods)
        autoencoders = Autoencoders(folder, data)
        measuring = Methods(data, config, encoder, args.steps, orders, chosen, autoencoders)
        keys = [key for key in keys if measuring.applies(*key[1:])]
        if not keys:
            raise UsageError(
                "--methods",
                "must apply to one of the label counts",
                f"{' '.join(methods)} with {' '.join(counts)} labels per class",
                "Choose other --methods or --counts.",
            )
        exit_code = _measure(measuring, keys, results, folder)
        if results and exit_code < 128:
            _report(results, folder)
    return exit_code


# --- Recipes --------------------------------------------------------------------------------


def _read_recipes(args: argparse.Namespace, methods: Sequence[str]) -> list[Recipe]:
    """The recipes to choose among; none where no method uses one."""
    using = (*FOLLOWING, *ON_ENCODINGS, *(() if args.model else ENCODING))
    if not any(m in using for m in methods):
        return []
    recipes = [load_recipe(find_recipe(name)) for name in args.recipes or get_recipes()]
    for recipe in recipes:
        if recipe.labels is None:
            raise ConfigurationError(
                recipe.name,
                "must say how many labels it is for",
                "no key labels",
                'Add for example "labels": 100.',
            )
    return recipes


def _choose_recipes(
    recipes: Sequence[Recipe], counts: Sequence[str], data: LabelledData
) -> dict[str, Recipe]:
    """The recipe for each number of labels per class that has one."""
    chosen = {}
    for count in counts if recipes else ():
        labels = data.get_size(count)
        if recipe := choose_recipe(recipes, labels, data.has_unlabelled(count)):
            chosen[count] = recipe
        else:
            terminal.warn(f"No recipe covers {labels:,} labels; methods that need one are skipped.")
    return chosen


# --- Data -----------------------------------------------------------------------------------


def _check_files(args: argparse.Namespace, recipes: Sequence[Recipe]) -> None:
    """Checks the headers of all files, before anything is loaded."""
    if not args.test and not has_test(args.dataset, images.get_reading(args)):
        raise UsageError("-t", "test images are required", "none", "Add -t TEST -tl TEST_LABELS.")
    shape = images.check_labelled_images(args)
    if args.model:
        starting_points.check_model_shape(args.model, shape)
    for recipe in recipes:
        config = recipe.autoencoder or recipe.classifier
        starting_points.check_layers(config, None, shape, recipe.name)
    if args.pretraining:
        _, other_shape = check_dataset(args.pretraining, reading=images.get_reading(args))
        other_shape = images.change_shape(other_shape, args, "train")
        images.check_same_shape(args.pretraining, other_shape, shape)
    check_runs_dir(args.runs_dir)


def _load_data(args: argparse.Namespace) -> LabelledData:
    training, test, unlabelled = images.load_labelled_images(args, seed=0)
    images.report_skipped([data for data in (training, test, unlabelled) if data])
    pretraining = training
    if args.pretraining:
        pretraining = load_dataset(args.pretraining, reading=images.get_reading(args))
        pretraining = images.change_images(pretraining, args, "train", get_scaling(training.images))
    elif unlabelled:
        pretraining = join(training, unlabelled, images.get_changes(args, "train"))
    scaling = images.choose_scaling(args.model, training, unlabelled)
    data = LabelledData(training, test, pretraining.images, scaling, unlabelled)
    images.warn_of_looks(args.model, data.datasets, scaling, args, terminal.warn)
    return data


def choose_counts(data: LabelledData, given: list[str] | None) -> list[str]:
    """The numbers of labels per class: those of --counts, or all usual ones that fit."""
    _, available = np.unique(data.training.labels, return_counts=True)
    fewest = int(available.min())
    if given is None:
        return [count for count in COUNTS if count == ALL or int(count) < fewest]
    for count in given:
        if count != ALL and int(count) > fewest:
            raise UsageError(
                "--counts",
                f"must be at most {fewest}, the number of images in the smallest class",
                count,
                f"Request fewer, or {ALL}.",
            )
    return list(dict.fromkeys(given))


def _find_leakage(args: argparse.Namespace, hashes: dict[str, np.ndarray]) -> list[str]:
    """Reports images that occur twice, and refuses test images that were trained on."""
    if not args.pretraining:
        hashes = {role: hashes[role] for role in hashes if role != "pretraining"}
    overlaps = splits.find_overlaps(hashes)
    for overlap in overlaps:
        if overlap.second == "test" and not args.allow_leakage:
            overlap.refuse(args.test or args.dataset)
    facts = [str(overlap) for overlap in overlaps]
    facts.append("none of the training images occurs twice")
    if repeats := len(splits.find_repeats(hashes["training"])):
        # The validation images are drawn from the training images.
        found = counted(repeats, "repeated image")
        facts[-1] = f"{found} among the training images; a copy may be among the validation images"
    for fact in facts:
        terminal.ERR.print(Text(f"Exact duplicates: {fact}"))
    return facts


# --- Settings -------------------------------------------------------------------------------


def _describe_settings(
    args: argparse.Namespace,
    config: ClassifierConfig,
    data: LabelledData,
    recipes: dict[str, Recipe],
) -> dict[str, Any]:
    """What the results depend on; leakage that is not allowed is a `DataError`."""
    hashes = {
        "pretraining": splits.hash_images(data.pretraining),
        **{role: splits.hash_images(part.images) for role, part in data.datasets.items()},
    }
    return {
        "data": _digest(hashes["training"], data.training.labels),
        "test": _digest(hashes["test"], data.test.labels),
        "pretraining": _digest(hashes["pretraining"]),
        "model": args.model and files.get_record(args.model)["sha256"],
        "encoder_until": args.encoder_until,
        "model_input_range": args.model_input_range,
        "config": config.model_dump(mode="json"),
        "steps": args.steps,
        "max_epochs": MOST_EPOCHS,
        "validation_share": VALIDATION_SHARE,
        "leakage": _find_leakage(args, hashes),
        "recipes": {count: dump_recipe(recipe) for count, recipe in recipes.items()},
    }


def _digest(hashes: np.ndarray, labels: np.ndarray | None = None) -> str:
    """SHA-256 of images, by their hashes, and of labels, whatever files they come from."""
    digest = hashlib.sha256(hashes.astype("<u8").tobytes())
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes the settings that results depend on, unless those in the file differ.

    Recipes for other numbers of labels stay in the file. The sentences about duplicates follow from
    the hashed data, so an earlier version may have worded them differently.
    """
    recipes, apart = settings["recipes"], ("recipes", "leakage")
    if path.exists():
        before = load_record(path, dict[str, Any], "Choose another --name.")
        before["config"] = add_new_keys(before.get("config", {}), "classifier")
        earlier = before.get("recipes", {})
        try:
            for recipe in earlier.values():
                halves = {kind: recipe[kind] for kind in CONFIGS if recipe[kind]}
                recipe |= {kind: add_new_keys(half, kind) for kind, half in halves.items()}
        except (AttributeError, KeyError, TypeError) as error:
            required = "must contain the recipes of its results"
            raise DataError(path, required, shown(earlier), "Choose another --name.") from error
        pairs = {key: (before.get(key), settings[key]) for key in settings if key not in apart}
        for count in earlier.keys() & recipes.keys():
            pairs[f"recipe for {count} labels per class"] = earlier[count], recipes[count]
        for key, (old, new) in pairs.items():
            if old != new:
                raise DataError(
                    path,
                    f"must have the same {key} as this start, {shown(new)}",
                    shown(old),
                    "Use the same flags and files as before, or choose another --name.",
                )
        recipes = earlier | recipes
    files.write_json(path, settings | {"recipes": recipes})


# --- Measuring ------------------------------------------------------------------------------


def _measure(
    methods: Methods, keys: Sequence[Key], results: list[Measurement], folder: Path
) -> int:
    """Adds what is missing to `results` and to the folder; returns the exit code."""
    known = {result.key for result in results}
    missing = [key for key in keys if key not in known]
    if any(method in ENCODING for *_, method in missing):
        _ = methods.given_encoder  # a file that cannot be loaded is an error before all trainings
    exit_code = 0
    with StopSignal() as stop, sharing_encodings():
        for number, key in enumerate(missing, 1):
            try:
                result = methods.measure(*key, should_stop=stop.requested)
            except UserError as error:
                exit_code = terminal.report(error)  # the others are still measured
                continue
            except Interrupted:
                pass
            if stop.requested():  # in the middle of a training
                terminal.warn("Results so far are saved. Run the same command to resume.")
                return stop.exit_code
            results.append(result)
            files.write_csv(folder / "results.csv", [row.model_dump() for row in results])
            left = format_duration(_estimate_seconds(missing[number:], results))
            terminal.ERR.print(
                f"[{len(keys) - len(missing) + number}/{len(keys)}] {METHODS[result.method]}, "
                f"{result.labels:,} labels, seed {result.seed}: test error "
                f"{result.test_error:.2%} ({result.seconds:.1f} s, about {left} left)"
            )
    return exit_code


def _estimate_seconds(keys: Sequence[Key], results: list[Measurement]) -> float:
    """Seconds for what is missing, by the same method and labels with other seeds, or by all."""
    seconds = defaultdict(list)
    for result in results:
        seconds[result.per_class, result.method].append(result.seconds)
    known = [result.seconds for result in results]
    return sum(fmean(seconds.get((count, method), known)) for _, count, method in keys)


def _report(results: list[Measurement], folder: Path) -> None:
    """Prints the table and the conclusion, and writes both, and the figure."""
    from cae.figures.comparisons import label_efficiency_visualization

    errors = label_results.summarize(results)
    rows = [
        {
            "method": method,
            "labels": labels,
            "seeds": error.seeds,
            "test_error": round(error.mean, 6),
            **_describe_interval(error),
        }
        for method, points in errors.items()
        for labels, error in points.items()
    ]
    files.write_csv(folder / "summary.csv", rows)
    sentences = label_results.conclude(results)
    files.write_text(folder / "conclusion.txt", "\n".join([*sentences, ""]))
    figure = label_efficiency_visualization(label_results.get_curves(errors))
    files.write_figure(folder / "label_efficiency.png", figure)
    terminal.say(label_results.TABLE_TITLE)
    for table in label_results.get_tables(errors):
        terminal.print_table(table)
    for sentence in sentences:
        terminal.say(sentence)
    terminal.say(f"Results: {terminal.relative(folder)}")


def _describe_interval(error: Estimate) -> dict[str, Any]:
    """Its ends, and which of them lie beyond what is possible; nothing with one seed."""
    if error.seeds < 2:
        return {"low": "", "high": "", "open": ""}
    opens = ["low"] * error.is_low_open + ["high"] * error.is_high_open
    return {"low": round(error.low, 6), "high": round(error.high, 6), "open": " ".join(opens)}
