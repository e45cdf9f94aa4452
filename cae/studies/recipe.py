"""Trains the pair of a recipe: an autoencoder on all images, then a classifier on its encoder.

python experiments.py recipe few_labels_100 -d mnist --labels-per-class 10

Each of the two is an ordinary run, `runs/<name>/autoencoder-seed0` and `classifier-seed0`. The same
command again skips what is complete and resumes what was interrupted.
"""

import shlex
import shutil
from argparse import Namespace
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from statistics import fmean, stdev

from cae import terminal
from cae.config.load import Recipe, choose_recipe, load_recipe, override
from cae.config.schema import CONFIGS, Config
from cae.config.shipped import find_recipe, get_recipes
from cae.files import locked
from cae.programs.images import without_labels
from cae.programs.start import find_command, repeat_command
from cae.programs.starting_points import check_layers
from cae.programs.task import Task
from cae.programs.tasks import AutoencoderTask, ClassifierTask
from cae.programs.trainer import Trainer
from cae.records import tracking
from cae.records.run import (
    MODEL_FILE,
    START_FILE,
    check_runs_dir,
    get_partial,
    is_interrupted,
    read_start,
)
from cae.studies.results import get_recipe_path, read_result

# Flags of the training programs that this command lacks.
ABSENT = {
    **dict.fromkeys(("save", "init_from", "resume", "run_dir", "devices", "model")),
    **dict.fromkeys(("encoder_until", "model_input_range")),
    **{"config": (), "overwrite": False, "no_pretrained": False},
}


def run(args: Namespace) -> int:
    """Trains the pairs of a recipe, or continues; returns the exit code."""
    hint = f"Stopped. Resume with: {repeat_command(args.command, find_command)}"
    try:
        exit_code = _run(Namespace(**ABSENT | vars(args)))
    except KeyboardInterrupt:
        terminal.ERR.print(hint)
        raise
    if exit_code:
        terminal.ERR.print(hint)
    return exit_code


def _run(args: Namespace) -> int:
    tracking.check_flags(args)
    paths = [find_recipe(args.recipe)] if args.recipe else get_recipes().values()
    recipes = [load_recipe(path) for path in paths]
    shape, _ = ClassifierTask.check(args)
    seeds = range(args.seed, args.seed + args.seeds)
    tasks = (ClassifierTask.load(Namespace(**vars(args)), seed) for seed in seeds)
    first = next(tasks)
    recipe = recipes[0] if args.recipe else _choose(recipes, first)
    check_layers(recipe.autoencoder or recipe.classifier, None, shape, f"recipe {recipe.name}")
    first.check_config(recipe.classifier)
    name = args.name or f"{recipe.name}-{first.data.name}"
    folder = check_runs_dir(Path(args.runs_dir, name))
    with locked(folder):
        for seed, task in zip(seeds, chain([first], tasks), strict=True):
            if exit_code := _train_pair(recipe, task, seed, folder):
                return exit_code
    _show_results(recipe, seeds, folder)
    terminal.say(f"Runs: {terminal.relative(folder)}")
    model = get_recipe_path(folder, "classifier", seeds[0]) / MODEL_FILE
    terminal.print_as_is(f"Next: {shlex.join(first.next_command(model))}")
    return 0


def _choose(recipes: Sequence[Recipe], task: ClassifierTask) -> Recipe:
    """The shipped recipe for the labels that there are."""
    labels = len(task.data.images)
    recipe = choose_recipe(recipes, labels, task.unlabelled is not None)
    terminal.say(f"Recipe for {labels:,} labels: {recipe.name}")
    return recipe


def _train_pair(recipe: Recipe, classifier: ClassifierTask, seed: int, folder: Path) -> int:
    """Trains what is not complete of a pair; returns the exit code."""
    if recipe.autoencoder:
        task = AutoencoderTask.load(Namespace(**without_labels(vars(classifier.args))), seed)
        if exit_code := _train(task, recipe, override(recipe.autoencoder, seed=seed), folder):
            return exit_code
        model = get_recipe_path(folder, "autoencoder", seed) / MODEL_FILE
        classifier.args.model = terminal.relative(model)
    return _train(classifier, recipe, override(recipe.classifier, seed=seed), folder)


def _train(task: Task, recipe: Recipe, config: Config, folder: Path) -> int:
    """Trains a configuration unless its run is complete; returns the exit code.

    Raises:
        DataError: The run began with other settings or data.
        UserError: The loss was not always finite.
    """
    name, path = f"{recipe.name}-{config.kind}", get_recipe_path(folder, config.kind, config.seed)
    trainer = Trainer(task, names_resume=False)
    is_complete, is_begun = (path / START_FILE).exists(), is_interrupted(path)
    if is_complete or is_begun:
        begun = path if is_complete else get_partial(path)
        now = trainer.get_start(name, config, task.get_scaling(config))
        read_start(begun).check_same(begun, now, "Use the same flags, or another --name.")
    if is_complete:
        terminal.ERR.print(f"Complete: {terminal.relative(path)}")
    else:
        task.args.run_dir, task.args.resume = str(path), str(path) if is_begun else None
        if task.args.tensorboard:  # where runs of one name would be one
            task.args.tensorboard = str(Path(task.args.tensorboard, folder.name))
        if not is_begun:
            shutil.rmtree(get_partial(path), ignore_errors=True)  # killed before it had begun
        trainer.train(name, config)
        if trainer.stop.requested():
            return trainer.stop.exit_code
    if divergence := read_result(path).history.divergence:
        raise divergence
    return 0


def _show_results(recipe: Recipe, seeds: Sequence[int], folder: Path) -> None:
    """Prints the test error and the seconds of each seed, their means and standard deviations."""
    kinds = [kind for kind in CONFIGS if getattr(recipe, kind)]
    metrics = {
        kind: [read_result(get_recipe_path(folder, kind, seed)).history.metrics for seed in seeds]
        for kind in kinds
    }
    columns = {}  # heading -> form and values
    if "test_accuracy" in metrics["classifier"][0]:
        errors = [1 - values["test_accuracy"] for values in metrics["classifier"]]
        columns["test error"] = "{:.2%}", errors
    for kind in kinds:
        columns[f"{kind}, s"] = "{:.1f}", [values["seconds"] for values in metrics[kind]]
    parts = {str(seed): itemgetter(index) for index, seed in enumerate(seeds)}
    if len(seeds) > 1:
        parts |= {"mean": fmean, "sd": stdev}
    rows = [
        {"seed": name} | {key: form.format(part(values)) for key, (form, values) in columns.items()}
        for name, part in parts.items()
    ]
    terminal.print_rows(recipe.name, rows, numeric=columns)
