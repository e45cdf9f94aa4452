"""Untrusted model files are refused with a reason before any of their content acts.

Every case is loaded in this process with an armed trap: a function, module or file that would leave
a mark. Afterwards there is no mark, no file was left or written, and the memory of the process has
not grown.
"""

import copy
import json
import shutil
import stat
import zipfile

import h5py
import keras
import pytest
from model_files import BOMB, TRAP, assert_refused, members_of, nothing_happens, pack

from cae.errors import ModelFileError
from cae.records.saved_models import load_model, read_metadata
from cae.records.untrusted import CONFIG_FILE, WEIGHTS_FILE

# --- Configurations -------------------------------------------------------------------------


def rewrite(source, target, change):
    """A copy of a model file whose configuration `change` has changed in place."""
    if target.suffix == ".h5":
        shutil.copy(source, target)
        with h5py.File(target, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
    else:
        members = members_of(source)
        config = json.loads(members[CONFIG_FILE])
        change(config)
        pack(target, members | {CONFIG_FILE: json.dumps(config)})


def encoder_of(config):
    return next(layer for layer in config["config"]["layers"] if "layers" in layer["config"])


def first(config):
    """The convolution in the encoder."""
    return encoder_of(config)["config"]["layers"][-1]


def replace_layer(**layer):
    def change(config):
        first(config).update(layer)

    return change


def set_value(**values):
    def change(config):
        first(config)["config"].update(values)

    return change


def add_layers(count, **layer):
    def change(config):
        layers = encoder_of(config)["config"]["layers"]
        layers += [copy.deepcopy(layer) for _ in range(count)]

    return change


def nest_deeply(config):
    value = []
    for _ in range(400):
        value = [value]
    first(config)["config"]["padding"] = value


FUNCTION = {"class_name": "function", "module": "builtins", "registered_name": "function"}
LOAD = "enable_unsafe_deserialization"
CONFIGS = {
    "lambda": (replace_layer(class_name="Lambda", config={"function": "spring"}), "'Lambda'"),
    "other_module": (replace_layer(module="spy", class_name="Dense"), "of 'spy'"),
    "safe_mode_off": (
        replace_layer(module="keras.config", class_name="function", config=LOAD),
        f"function '{LOAD}' of 'keras.config'",
    ),
    "download": (
        set_value(activation=FUNCTION | {"module": "keras.utils", "config": "get_file"}),
        "function 'get_file' of 'keras.utils'",
    ),
    "custom_class": (replace_layer(module=None, class_name="Trap"), "'Trap'"),
    "registered_class": (
        replace_layer(module=None, class_name="Conv2D", registered_name=TRAP),
        f"custom object '{TRAP}'",
    ),
    "registered_without_class": (set_value(padding={"registered_name": TRAP}), "class None"),
    "class_in_a_list": (replace_layer(class_name=["Trap"]), r"class \['Trap'\]"),
    "saved_model": (replace_layer(class_name="TFSMLayer", config={"filepath": "x"}), "TFSMLayer"),
    "function_by_name": (set_value(activation="spring"), "activation 'spring'"),
    "function_registered": (
        set_value(activation=FUNCTION | {"config": "relu", "registered_name": "spring"}),
        "function 'relu'",
    ),
    "initializer": (set_value(kernel_initializer="spring"), "kernel_initializer 'spring'"),
    "regularizer": (set_value(bias_regularizer="spring"), "bias_regularizer 'spring'"),
    "constraint": (set_value(kernel_constraint="spring"), "kernel_constraint 'spring'"),
    "lambda_value": (
        set_value(strides={"class_name": "__lambda__", "config": {"value": "4wAAAA=="}}),
        "__lambda__",
    ),
    "path_as_name": (set_value(name="../../../mark"), "layer named '../../../mark'"),
    "terminal_codes": (set_value(name="\x1b[2J"), r"'\\x1b\[2J'"),
    "nested": (nest_deeply, "nested too deeply|could not be read"),
    "many_layers": (add_layers(1001, class_name="Flatten", config={}), "layers, more than 1,000"),
    "no_model": (
        lambda config: config.update(
            module="keras.layers", class_name="Dense", registered_name=None
        ),
        "not a model",
    ),
    "megabytes": (set_value(padding=" " * 1_000_000), "bytes"),
    # Numbers that Keras would act on.
    "weights_for_terabytes": (set_value(filters=10**12), "could not be read"),
    # Normalization allocates its mean when it is built.
    "weights_for_gigabytes": (set_value(filters=10**8), "could not be read"),
    "mean_of_gigabytes": (
        replace_layer(
            class_name="Normalization",
            config={"name": "first"},
            build_config={"input_shape": [None, 10**9]},
        ),
        "could not be read",
    ),
    "images_of_terabytes": (
        add_layers(1, class_name="UpSampling2D", config={"size": [10**6, 10**6]}),
        "at most 268,435,456 values",
    ),
    "endless_number": (set_value(filters=float("inf")), "could not be read"),
}


@pytest.mark.parametrize(
    ("case", "suffix"),
    [
        *((case, ".keras") for case in CONFIGS),
        *((case, ".h5") for case in ("lambda", "terminal_codes", "weights_for_terabytes")),
    ],
)
def test_configurations(case, suffix, plain, tmp_path, trap, monkeypatch):
    change, match = CONFIGS[case]
    path = tmp_path / f"m{suffix}"
    rewrite(plain.with_suffix(suffix), path, change)
    assert_refused(path, match, trap, monkeypatch)


def test_the_trap_works(plain, tmp_path, trap):
    """Keras itself creates the registered layer, which leaves the mark."""
    path = tmp_path / "m.keras"
    rewrite(
        plain.with_suffix(".keras"),
        path,
        replace_layer(module=None, class_name="Trap", registered_name=TRAP, config={}),
    )
    keras.models.load_model(path)
    assert trap.exists()


def test_python_in_a_lambda_layer(tmp_path, trap, monkeypatch):
    """Keras itself writes the bytecode into the file."""
    mark = str(trap)
    inputs = keras.Input((2,))
    spring = keras.layers.Lambda(lambda x: (open(mark, "w").close(), x)[1])  # noqa: PTH123
    keras.Model(inputs, spring(inputs)).save(tmp_path / "m.keras")
    trap.unlink()
    assert_refused(tmp_path / "m.keras", "'Lambda'", trap, monkeypatch)


def test_optimizer_and_loss_are_ignored(plain, tmp_path, trap, monkeypatch):
    """They may be custom objects, and using a model does not need them."""

    def change(config):
        first(config)["compile_config"] = {"loss": {"class_name": "Trap", "config": {}}}

    rewrite(plain.with_suffix(".keras"), tmp_path / "m.keras", change)
    with nothing_happens(tmp_path, trap, monkeypatch):
        model, _ = load_model(tmp_path / "m.keras")
    assert not model.compiled and not model.get_layer("encoder").compiled


def test_refused_before_tensorflow(plain, tmp_path, monkeypatch):
    """Reading the metadata checks the configuration as well."""
    rewrite(plain.with_suffix(".keras"), tmp_path / "m.keras", set_value(activation="spring"))
    monkeypatch.setattr(keras.models, "load_model", None)
    with pytest.raises(ModelFileError, match="activation 'spring'"):
        read_metadata(tmp_path / "m.keras")


# --- Archives -------------------------------------------------------------------------------


def without(source, name):
    members = members_of(source)
    del members[name]
    return members


def add_member(name):
    return lambda source, path: pack(path, members_of(source), (name, b"x"))


def link(source, path):
    """The weights are a symbolic link to a file on the user's machine."""
    entry = zipfile.ZipInfo(WEIGHTS_FILE)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    pack(path, without(source, WEIGHTS_FILE), (entry, b"/etc/passwd"))


def twice(source, path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        pack(path, members_of(source), (CONFIG_FILE, b"{}"))


def bomb(name):
    def write(source, path):
        pack(path, without(source, name))
        with (
            zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
            archive.open(name, "w") as member,
        ):
            for _ in range(BOMB // 10**7):
                member.write(bytes(10**7))

    return write


def endless_list(source, path):
    """The list of members takes a hundred times the size of the file in memory."""
    pack(path, members_of(source), {f"{number:060}": b"" for number in range(12_000)})


ARCHIVES = {
    "outside": (add_member("../mark"), r"called '\.\./mark'"),
    "assets": (add_member("assets/layers/x/vocabulary.txt"), "called 'assets/"),
    "terminal_codes": (add_member("\x1b[2J"), r"'\\x1b\[2J'"),
    "link": (link, r"model\.weights\.h5 as a link"),
    "twice": (twice, "same name"),
    "weights_bomb": (bomb(WEIGHTS_FILE), r"1,000,\d+,\d+ bytes packed into \d{3},\d+|1,000,"),
    "config_bomb": (bomb(CONFIG_FILE), r"config\.json of 1,000,000,000 bytes"),
    "other_compression": (
        lambda source, path: pack(path, members_of(source), compression=zipfile.ZIP_BZIP2),
        "compression method 12",
    ),
    "endless_list": (endless_list, "a list of members of"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives(case, plain, tmp_path, trap, monkeypatch):
    write, match = ARCHIVES[case]
    write(plain.with_suffix(".keras"), tmp_path / "m.keras")
    assert_refused(tmp_path / "m.keras", match, trap, monkeypatch)


def test_a_compressed_archive_loads(plain, tmp_path):
    """For example one that was unpacked and packed again."""
    members = members_of(plain.with_suffix(".keras"))
    pack(tmp_path / "m.keras", members, compression=zipfile.ZIP_DEFLATED)
    assert load_model(tmp_path / "m.keras")[0].get_layer("encoder")


# --- Allowed content ------------------------------------------------------------------------


def test_functions_and_settings_of_plain_models(tmp_path):
    """Initializers, regularizers, constraints, activations and half precision by Keras' names."""
    layers = [keras.Input((8, 8, 1))]
    for initializer in ("he_normal", keras.initializers.Constant(0.5), "orthogonal"):
        options = {"activation": keras.activations.tanh, "kernel_initializer": initializer}
        options["kernel_regularizer"] = keras.regularizers.L1L2(0.1, 0.1)
        options |= {"bias_constraint": "max_norm", "dtype": "mixed_bfloat16"}
        layers.append(keras.layers.Conv2D(2, 3, **options))
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"m{suffix}")
        loaded, _ = load_model(tmp_path / f"m{suffix}")
        before, after = (m.layers[-1].get_config() for m in (model, loaded))
        assert before == after


# --- Through a program ----------------------------------------------------------------------


def test_a_program_prints_one_line(
    tmp_path, launch, files, classifier_config, trained_autoencoder, trap, monkeypatch
):
    path = tmp_path / "m.keras"
    rewrite(trained_autoencoder.saved, path, replace_layer(class_name="Lambda"))
    (tmp_path / "runs").mkdir()
    flags = [*files.classifier, "-c", classifier_config, "-model", path]
    with nothing_happens(tmp_path, trap, monkeypatch):
        done = launch("classification", *flags)
    assert done.exit_code == 2 and done.out == ""
    (line,) = (line for line in done.err.splitlines() if line != "Starting TensorFlow …")
    assert line.startswith(f"error: {path}: ") and "Lambda" in line
