"""`predict.py encode`, `reconstruct` and `anomalies`: what saved models make of images."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import read_rows, run_program
from keras import layers
from picture_folders import save_picture
from PIL import Image

from cae.data import idx
from cae.data.idx import read_images
from cae.records.calibration import Typical
from cae.records.saved_models import load_model, read_metadata, save_model


class TestEncodings:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def start(command, *args):
            return run_program("predict", command, *args)

        return start

    @pytest.fixture
    def images(self, files):
        return read_images(files.test).astype(np.float32) / 255

    def test_encodings_are_those_of_the_encoder(self, run, files, images, trained_classifier):
        model, _ = load_model(trained_classifier.saved)
        expected = np.asarray(model.get_layer("encoder")(images))
        for name in ("e.npy", "e.csv"):
            run("encode", trained_classifier.saved, files.test, "-o", name).ok()
        np.testing.assert_allclose(np.load("e.npy"), expected, atol=1e-6)
        rows = read_rows(Path("e.csv"))
        names = [row["image"] for row in rows]
        assert names == Path("e.txt").read_text().splitlines()
        values = [[float(row[key]) for key in row if key != "image"] for row in rows]
        np.testing.assert_allclose(values, expected.reshape(len(rows), -1), atol=1e-6)

    def test_a_line_break_in_a_name_shifts_no_other(self, run, files, trained_classifier):
        for name in ("a\nb.png", "c.png"):
            save_picture(name, read_images(files.test)[0])
        run("encode", trained_classifier.saved, "a\nb.png", "c.png", "-o", "e.npy").ok()
        assert Path("e.txt").read_text() == "a b.png\nc.png\n"

    def test_reconstructions(self, run, files, images, trained_autoencoder):
        model, _ = load_model(trained_autoencoder.saved)
        expected = np.asarray(model(images))
        for output in ("drawn", "drawn.idx", "drawn.png"):
            run("reconstruct", trained_autoencoder.saved, files.test, "-o", output).ok()
        np.testing.assert_allclose(read_images(Path("drawn.idx")) / 255, expected, atol=0.003)
        written = sorted(Path("drawn").iterdir())
        assert len(written) == len(images)
        np.testing.assert_array_equal(
            Image.open(written[3]), read_images(Path("drawn.idx"))[3, ..., 0]
        )
        with Image.open("drawn.png") as figure:  # of many images, so larger than one, in grays
            assert min(figure.size) > 100
            assert len(figure.convert("L").getcolors()) > 20

    def test_reconstructions_of_another_program(self, run, files, images):
        """They are those of plain Keras, which takes bytes, as the first layer shows."""
        parts = [keras.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Conv2D(1, 1)]
        model = keras.Sequential([*parts, layers.Activation("sigmoid")])
        model.save("m.keras")
        expected = model.predict_on_batch(255 * images)
        done = run("reconstruct", "m.keras", files.test, "-o", "r.idx").ok()
        assert "0..255" in done.out
        np.testing.assert_allclose(read_images(Path("r.idx")) / 255, expected, atol=0.003)
        flags = ["--model-input-range", "0..1", "-o", "s.idx"]
        assert run("reconstruct", "m.keras", files.test, *flags).exit_code == 0
        expected = model.predict_on_batch(images)
        np.testing.assert_allclose(read_images(Path("s.idx")) / 255, expected, atol=0.003)

    @pytest.mark.parametrize("shape", [(None, None, 1), (64,)])
    @pytest.mark.parametrize("name", ["images.idx", "images.npy"])
    def test_a_model_that_does_not_state_the_size(self, run, files, images, shape, name):
        """An array of images says it; pictures do not."""
        inner = layers.Conv2D(1, 1) if len(shape) == 3 else layers.Dense(64)
        model = keras.Sequential([keras.Input(shape), inner])
        model.save("m.keras")
        pixels = read_images(files.test)
        idx.write_idx(name, pixels) if name == "images.idx" else np.save(name, pixels)
        flags = ["--model-input-range", "0..1"]
        run("encode", "m.keras", name, "-o", "e.npy", "--encoder-until", inner.name, *flags).ok()
        given = images if len(shape) == 3 else images.reshape(-1, 64)
        expected = model.predict_on_batch(given)
        np.testing.assert_allclose(np.load("e.npy"), expected, atol=1e-5)
        assert run("reconstruct", "m.keras", name, "-o", "r.idx", *flags).exit_code == 0
        assert read_images(Path("r.idx")).shape == pixels.shape
        save_picture("1.png", pixels[0])
        refused = run("encode", "m.keras", "1.png", "-o", "f.npy").refused(".npy")
        assert refused.err.count("error") == 1 and not Path("f.npy").exists()

    def test_a_model_of_channels_first(self, run, files):
        """The model is what does not fit, and the layer that the error names mends it."""
        parts = [layers.Permute((2, 3, 1)), layers.Flatten(), layers.Dense(3, "softmax")]
        model = keras.Sequential([keras.Input((1, 8, 8)), *parts])
        model.save("m.keras")
        save_picture("1.png", read_images(files.test)[0])
        for given in ("1.png", files.test):
            refused = run("classify", "m.keras", given).refused(
                "channels first", "Permute((3, 1, 2))"
            )
            assert refused.err.count("error") == 1
        keras.Sequential([keras.Input((8, 8, 1)), layers.Permute((3, 1, 2)), model]).save("n.keras")
        assert run("classify", "n.keras", "1.png", files.test).exit_code == 0

    def test_scores_of_an_autoencoder(self, run, files, images, trained_autoencoder):
        """They are mean squared errors."""
        model, metadata = load_model(trained_autoencoder.saved)
        expected = np.square(np.asarray(model(images)) - images).mean(axis=(1, 2, 3))
        run("anomalies", trained_autoencoder.saved, files.test, "--csv", "a.csv").ok()
        rows = read_rows(Path("a.csv"))
        np.testing.assert_allclose([float(row["score"]) for row in rows], expected, rtol=1e-4)
        threshold = Typical(**metadata["typical"]).get_threshold(0.99)
        found = [row["anomaly"] == "1" for row in rows]
        np.testing.assert_array_equal(found, expected > threshold)

    def test_the_share_of_normal_images_is_chosen(self, run, files, trained_autoencoder):
        """A lower quantile gives a lower threshold."""
        typical = Typical(**read_metadata(trained_autoencoder.saved)["typical"])
        for quantile in (0.5, 0.9):
            flags = ["--quantile", quantile, "--csv", f"{quantile}.csv"]
            done = run("anomalies", trained_autoencoder.saved, files.test, *flags).ok()
            threshold = typical.get_threshold(quantile)
            rows = read_rows(Path(f"{quantile}.csv"))
            is_above = [float(row["score"]) > threshold for row in rows]
            assert [row["anomaly"] == "1" for row in rows] == is_above
            assert f"{threshold:.4g}" in done.out and f"{1 - quantile:.2%}" in done.out
        assert typical.get_threshold(0.5) < typical.get_threshold(0.9)

    def test_a_model_that_does_not_know_what_is_typical(self, run, files, trained_autoencoder):
        model, metadata = load_model(trained_autoencoder.saved)
        del metadata["typical"]
        save_model(model, "m.keras", metadata)
        done = run("anomalies", "m.keras", files.test, "--csv", "a.csv").refused(
            "m.keras: must record the scores"
        )
        assert not done.out and not Path("a.csv").exists()

    def test_noise_is_unlike_the_training_data(self, run, files, trained_classifier):
        """Labels say how well scores find it."""
        images = read_images(files.test)
        noise = np.random.default_rng(0).integers(0, 256, images.shape).astype(np.uint8)
        np.save("all.npy", np.concatenate([images, noise]))
        idx.write_idx("labels.idx", np.repeat([0, 1], len(images)).astype(np.uint8))
        flags = ["--figures", "plots", "-tl", "labels.idx", "--strange", "1"]
        done = run("anomalies", trained_classifier.saved, "all.npy", *flags).ok()
        assert {path.name for path in Path("plots").iterdir()} == {"strangest.png", "roc.png"}
        assert float(re.search(r"ROC curve: ([\d.]+)", done.out)[1]) > 0.9
        np.save("labels.npy", np.repeat([0, 1], len(images)))
        flags = ["-tl", "labels.npy", "--strange", "1"]
        again = run("anomalies", trained_classifier.saved, "all.npy", *flags)
        assert again.out.splitlines()[-1] in done.out
        flags = ["-tl", "all.npy", "--strange", "1"]
        refused = run("anomalies", trained_classifier.saved, "all.npy", *flags).refused()
        assert refused.err.startswith("error: all.npy: ")
        assert not refused.out
        # Images without a label do not count: of the others some must be strange, some normal.
        for unknown, succeeds in ((slice(1, -1), True), (slice(0, -1), False)):
            words = np.array(["normal"] * len(images) + ["noise"] * len(images))
            words[unknown] = ""
            np.save("words.npy", words)
            flags = ["-tl", "words.npy", "--strange", "noise"]
            done = run("anomalies", trained_classifier.saved, "all.npy", *flags)
            assert ("ROC curve" in done.out) == succeeds
            assert done.exit_code == (0 if succeeds else 2) and "Traceback" not in done.err
        np.save("labels.npy", np.repeat([0, 1, 0], len(images)))
        many = run(
            "anomalies", trained_classifier.saved, "all.npy", *flags[:1], "labels.npy", *flags[2:]
        )
        many.refused("-tl: ", f"{3 * len(images)} labels for {2 * len(images)} images")
        useless = run("anomalies", trained_classifier.saved, "all.npy", "-tl", "labels.npy")
        assert useless.exit_code == 2 and "--strange" in useless.err

    def test_labels_count_images_that_cannot_be_read(self, run, files, trained_classifier):
        """As for `classify`: the second of three has a label, which nobody uses."""
        noise = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8)
        for name, image in (("1.png", read_images(files.test)[0]), ("3.png", noise)):
            save_picture(name, image)
        Path("2.png").write_text("no picture")
        idx.write_idx("labels.idx", np.array([0, 7, 1], np.uint8))
        idx.write_idx("few.idx", np.array([0, 7], np.uint8))
        flags = ["1.png", "2.png", "3.png", "--strange", "1", "-tl"]
        done = run("anomalies", trained_classifier.saved, *flags, "labels.idx").refused("2.png")
        assert "ROC curve: 1.0000" in done.out
        done = run(
            "anomalies", trained_classifier.saved, *flags, "few.idx", "--csv", "a.csv"
        ).refused("-tl: ")
        assert "score" not in done.out
        assert not Path("a.csv").exists()

    @pytest.mark.parametrize(
        ("command", "flags", "words"),
        [
            ("encode", ["-o", "e.txt"], ".npy or .csv"),
            ("reconstruct", ["-o", "e.idx"], "must be an autoencoder"),
            ("reconstruct", ["-o", "e.pngs/"], "must end in"),
            ("reconstruct", ["-o", "e"], "must be an autoencoder"),
            ("anomalies", ["--strange", "9"], "--strange"),
        ],
    )
    def test_what_cannot_be(self, run, files, trained_classifier, command, flags, words):
        run(command, trained_classifier.saved, files.test, *flags).refused(words)
        assert not list(Path().glob("e*"))

    def test_a_mistyped_label_costs_no_scores(self, run, files, trained_classifier):
        flags = [files.test, "--strange", "typo", "--csv", "a.csv"]
        run("anomalies", trained_classifier.saved, *flags).refused("--strange")
        assert len(read_rows(Path("a.csv"))) == len(read_images(files.test))


def read_numbers(path):
    """What `encode`, `reconstruct` or `anomalies` has written."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".idx":
        return read_images(path) / 255
    return np.array([float(row["score"]) for row in read_rows(path)])


class TestOtherLooks:
    """Images that were stored the other way round, for models that were not trained on such."""

    @pytest.fixture
    def wide(self, tmp_path, monkeypatch):
        """A model of images 2 high and 3 wide whose output is its input, and one such image."""
        monkeypatch.chdir(tmp_path)
        model = keras.Sequential([keras.Input((2, 3, 1)), layers.Activation("linear", name="same")])
        model.save("m.keras")
        return np.arange(6, dtype=np.uint8).reshape(1, 2, 3) * 50

    def test_rows_and_columns_are_swapped_on_demand(self, wide):
        np.save("turned.npy", wide.swapaxes(1, 2))
        save_picture("turned.png", wide[0].T[..., np.newaxis])
        for given in ("turned.npy", "turned.png"):
            for output, expected in (("r.idx", wide), ("e.npy", wide[..., np.newaxis] / 255)):
                command = "reconstruct" if output == "r.idx" else "encode"
                until = () if output == "r.idx" else ("--encoder-until", "same")
                flags = [*until, "--model-input-range", "0..1", "--transpose"]
                run_program("predict", command, "m.keras", given, "-o", output, *flags).ok()
                found = read_images(Path(output))[..., 0] if output == "r.idx" else np.load(output)
                np.testing.assert_allclose(found, expected, atol=1e-6)
                for path in Path().glob(f"{output[0]}.*"):
                    path.unlink()

    def test_the_flag_that_is_missing_or_too_much_is_named(self, wide):
        np.save("turned.npy", wide.swapaxes(1, 2))
        np.save("upright.npy", wide)
        for given, flags in (("turned.npy", []), ("upright.npy", ["--transpose"])):
            flags += ["-o", "e.npy", "--encoder-until", "same", "--model-input-range", "0..1"]
            done = run_program("predict", "encode", "m.keras", given, *flags)
            done.refused("--transpose")

    def test_dark_on_light(
        self, tmp_path, monkeypatch, files, trained_autoencoder, trained_classifier
    ):
        """Images of training, inverted: named without --invert, as upright ones with it."""
        monkeypatch.chdir(tmp_path)
        images = read_images(files.images)
        np.save("upright.npy", images)
        np.save("dark.npy", 255 - images)
        encoder, autoencoder = trained_classifier.saved, trained_autoencoder.saved
        for command, model, flag, name in (
            ("encode", encoder, "-o", "e.npy"),
            ("reconstruct", autoencoder, "-o", "r.idx"),
            ("anomalies", encoder, "--csv", "a.csv"),
        ):
            contents = []
            for given, *invert in (
                ("upright.npy",),
                ("dark.npy", "--invert", "auto"),
                ("dark.npy", "--invert", "always"),
                ("dark.npy",),
            ):
                done = run_program("predict", command, model, given, *invert, flag, name).ok()
                assert ("--invert auto" in done.err) == (given == "dark.npy" and not invert)
                assert ("are inverted" in done.out) == ("auto" in invert)
                contents.append(read_numbers(Path(name)))
                for path in Path().glob(f"{name[0]}.*"):
                    path.unlink()
            upright, *inverted, dark = contents
            for found in inverted:
                np.testing.assert_allclose(found, upright, rtol=1e-3, atol=0.005)
            assert np.abs(dark - upright).max() > 0.1


class TestManyImages:
    """More than are read at once, which are 1024."""

    @pytest.fixture
    def many(self, tmp_path, monkeypatch, files):
        """Images like those of training; the last but one is a chessboard, as none of them."""
        monkeypatch.chdir(tmp_path)
        images = np.tile(read_images(files.images), (24, 1, 1, 1))[:1100]
        images[1098, ..., 0] = 255 * (np.indices((8, 8)).sum(axis=0) % 2)
        np.save("many.npy", images)
        return images

    def test_no_image_is_lost_between_parts(self, many, trained_autoencoder):
        run_program("predict", "encode", trained_autoencoder.saved, "many.npy", "-o", "e.npy").ok()
        flags = ["many.npy", "-o", "r.idx"]
        run_program("predict", "reconstruct", trained_autoencoder.saved, *flags).ok()
        encodings, drawn = np.load("e.npy"), read_images(Path("r.idx"))
        assert len(encodings) == len(drawn) == len(Path("e.txt").read_text().splitlines()) == 1100
        assert Path("e.txt").read_text().splitlines()[1098] == "many.npy[1098]"
        for first in (0, 1024):
            same = np.flatnonzero((many == many[first]).all(axis=(1, 2, 3)))
            assert len(same) > 1
            np.testing.assert_allclose(encodings[same], encodings[[first] * len(same)], atol=1e-5)
            assert np.ptp(drawn[same].astype(int), axis=0).max() <= 1

    def test_the_strangest_of_all_comes_first(self, many, trained_classifier):
        flags = ["many.npy", "--csv", "a.csv", "--figures", "plots"]
        done = run_program("predict", "anomalies", trained_classifier.saved, *flags).ok()
        scores = [float(row["score"]) for row in read_rows(Path("a.csv"))]
        assert len(scores) == 1100 and np.argmax(scores) == 1098
        table = done.out[done.out.index("Images least like") :]
        assert re.search(r"many\.npy\[\d+\]", table)[0] == "many.npy[1098]"
        assert Path("plots/strangest.png").stat().st_size > 1000

    def test_the_worst_of_all_comes_first(self, many, trained_autoencoder, monkeypatch):
        written = {}
        keep = "cae.programs.encodings.write_figures"
        monkeypatch.setattr(keep, lambda _, figures: written.update(figures))
        flags = ["many.npy", "-o", "worst.png"]
        run_program("predict", "reconstruct", trained_autoencoder.saved, *flags).ok()
        figure = written["worst"]
        first = figure.axes[0].get_images()[0].get_array()
        np.testing.assert_allclose(first, many[1098, ..., 0] / 255, atol=1e-6)
        assert "1098" in figure.axes[0].texts[0].get_text()
        assert "20 of 1,100" in figure.get_suptitle()
