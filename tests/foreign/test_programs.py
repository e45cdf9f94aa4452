"""The programs train on models of other programs."""

import warnings

import keras
import numpy as np
from conftest import assert_same_weights
from foreign_models import IMAGES, SHAPE, chain, joint, textbook, textbook_layers
from keras import layers

from cae.training.build import start_from
from cae.training.predict import sharing_encodings


class TestPrograms:
    """The doors of the programs."""

    def test_a_flat_autoencoder_becomes_a_classifier(self, classify, tmp_path):
        """Training, metrics and figures work; plain Keras loads what is saved without warnings."""
        first = [keras.Input(SHAPE), layers.Rescaling(1 / 255)]
        model = keras.Sequential([*first, *textbook_layers()])
        model.save(tmp_path / "foreign.h5")
        done = classify(model=tmp_path / "foreign.h5").ok()
        assert "last (MaxPooling2D, 2×2×2)" in done.out and "0..255" in done.out
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            saved = keras.models.load_model(done.run / "model.keras")
            assert saved.predict_on_batch(IMAGES).shape == (4, 3)

    def test_a_normalization_is_kept(self, classify, tmp_path):
        """Its mean, variance and count have no dimensions; alone and in a study."""
        first = layers.Normalization(axis=None)
        first.adapt(IMAGES)
        chain(first, *textbook_layers()).save(tmp_path / "foreign.keras")
        done = classify(model=tmp_path / "foreign.keras").ok()
        with sharing_encodings():
            assert classify(model=tmp_path / "foreign.keras").exit_code == 0
        saved = keras.models.load_model(done.run / "model.keras").get_layer("encoder")
        kept = next(layer for layer in saved.layers if isinstance(layer, layers.Normalization))
        np.testing.assert_allclose(kept.mean, IMAGES.mean(), rtol=1e-5)

    def test_flags(self, classify, tmp_path):
        """They choose the layer and the pixels; `-1..1` is no flag."""
        joint().save(tmp_path / "m.keras")
        classify(model=tmp_path / "m.keras").refused("--encoder-until")
        flags = ["--encoder-until", "bottom", "--model-input-range", "-1..1"]
        done = classify(*flags, model=tmp_path / "m.keras").ok()
        saved = keras.models.load_model(done.run / "model.keras")
        assert saved.get_layer("encoder").layers[1].scale == 2
        assert saved.get_layer("encoder").output_shape == (None, 4, 4, 2)

    def test_an_output_that_was_saved_as_a_list(self, classify, tmp_path):
        """As Keras 2 and Keras 3.0 to 3.3 did."""
        inputs = keras.Input(SHAPE)
        encoder = keras.Model(inputs, [layers.MaxPooling2D()(layers.Conv2D(2, 3)(inputs))])
        encoder.save(tmp_path / "encoder.keras")
        done = classify(model=tmp_path / "encoder.keras").ok()
        assert "Warning" not in done.out + done.err

    def test_weights_of_the_original_program(self, autoencode, trained_autoencoder, tmp_path):
        """--init-from compares layers, wherever they are nested: the output stood alone."""
        model = keras.models.load_model(trained_autoencoder.saved)
        encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
        inner = chain(*decoder.layers[1:-1], shape=decoder.input_shape[1:], name="decoder")
        chain(encoder, inner, decoder.layers[-1]).save(tmp_path / "m.h5")
        target = keras.models.clone_model(model)
        start_from(target, tmp_path / "m.h5")
        assert_same_weights(target, model)
        autoencode("--init-from", tmp_path / "m.h5").ok()

    def test_other_layers_than_the_configuration(self, autoencode, tmp_path):
        """The advice does not lead in a circle: a foreign file has no configuration of its own."""
        textbook().save(tmp_path / "m.h5")
        done = autoencode("--init-from", tmp_path / "m.h5").refused("layers of the file")
        assert "leave out -c" not in done.err and "trained with" not in done.err

    def test_several_outputs_are_refused_and_the_menu_continues(
        self, tmp_path, launch, files, classifier_config, trained_autoencoder, typed
    ):
        """Train, test a saved classifier, and exit."""
        joint().save(tmp_path / "foreign.keras")
        typed(1, classifier_config, 3, 2, tmp_path / "foreign.keras", 5)
        flags = [*files.classifier, "-model", trained_autoencoder.saved, "--no-plots"]
        done = launch("classification", *flags).ok()
        assert "2 outputs" in done.err
        assert not any("-test-" in run.name for run in done.runs)
