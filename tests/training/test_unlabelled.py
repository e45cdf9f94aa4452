"""Learning from labelled and unlabelled images together."""

import keras
import numpy as np
import pytest
from conftest import draw_four_classes

from cae.config.fields import Augmentation, LabelSpreading, PseudoLabels, Unlabelled
from cae.config.load import validate_config
from cae.data.datasets import Scaling, get_scaling
from cae.data.labels import NO_LABEL
from cae.errors import ConfigurationError, UserError
from cae.records.history import DENSE_ONLY, FULL
from cae.training import build, train
from cae.training.unlabelled import Plan, Teaching, find_neighbours, keep_confident, spread_labels

STILL = Augmentation()
HEAD = {
    "encoder_layers": [["conv", 3, [3, 3]], ["batchNorm"], ["pool", [2, 2]]],
    "dense_layers": [["dense", 6]],
    "optimizer": ["adam", 0.01],
    "dense_only_train_epochs": 1,
    "full_train_epochs": 2,
    "batch_size": 4,
    "unlabelled": {"batch_size": 8, "label_spreading": {"neighbours": 3}, "pseudo_labels": {}},
}


@pytest.fixture
def images():
    return draw_four_classes(44)


def fit(images, count=20, *, pretrained=True, **changes):
    """Trains on labels of the first images, the others being unlabelled."""
    config = {**HEAD, **changes}
    model = build.get_classifier(config, images.shape[1:], 4)
    labels, others = np.arange(count) % 4, images[count:]
    given = {"pretrained": pretrained, "unlabelled": others, "warn": lambda sentence: None}
    return model, train.train_classifier(model, config, images[:count], labels, **given)


def test_unlabelled_images_share_in_the_scale():
    """The brightest labelled pixel is 0.5, the brightest of all is 4: a quarter, not cut off."""
    images = draw_four_classes(44).astype(np.float32) / 255
    images[:20] *= 0.5
    images[20:] *= 4
    rows = []
    for scaling in ({}, {"scaling": get_scaling(images)}):
        model = build.get_classifier(HEAD, images.shape[1:], 4)
        labels, others = np.arange(20) % 4, images[20:]
        given = {"unlabelled": others, "warn": lambda sentence: None, **scaling}
        history = train.train_classifier(model, HEAD, images[:20], labels, **given)
        rows.append([{**row, "seconds": 0} for row in history.epochs])
    assert rows[0] == rows[1]


def test_images_without_a_label_are_passed_apart(images):
    labels = np.array([0, 1, NO_LABEL, NO_LABEL])
    model = build.get_classifier(HEAD, images.shape[1:], 2)
    with pytest.raises(UserError, match=r"labels: .*2 images without a label.*unlabelled"):
        train.train_classifier(model, HEAD, images[:4], labels, unlabelled=images[4:])


class TestLabelSpreading:
    def spread(self, features, targets, prior=(0.5, 0.5), **config):
        labels, *_ = spread_labels(
            np.array(features, float), np.array(targets), np.array(prior), LabelSpreading(**config)
        )
        sums = labels.sum(axis=1)
        assert sums[sums > 0] == pytest.approx(1, abs=1e-6)
        return labels

    def test_labels_follow_the_neighbours(self):
        """Two arcs of directions, of each only one end has a label."""
        angles = np.radians([0, 10, 20, 30, 180, 190, 200, 210])
        features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        labels = self.spread(features, [0, -1, -1, -1, -1, -1, -1, 1], neighbours=2)
        assert labels.argmax(axis=1).tolist() == [0] * 4 + [1] * 4

    def test_a_rare_class_keeps_its_share(self):
        """Two far groups of 3 and 3,999 images, one label each of the classes 0 and 1."""
        directions = np.repeat(np.eye(2), [3, 3999], axis=0)
        targets = np.full(4002, -1)
        targets[[0, 3]] = 0, 1
        labels = self.spread(directions, targets, [0.0005, 0.9995], neighbours=2)
        assert labels[:3].argmax(axis=1).tolist() == [0, 0, 0]

    def test_classes_of_other_shares_than_the_labels(self):
        """A chain of 16 images, of which the third and the sixth have a label.

        Labels reach the images that are nearer to them: four and twelve. If both classes have to be
        equally frequent, the second cannot keep twelve.
        """
        angles = np.radians(np.arange(0, 96, 6))
        features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        targets = np.full(16, -1)
        targets[[2, 5]] = 0, 1
        free = self.spread(features, targets, neighbours=2, alpha=0.5, align="never")
        assert free.argmax(axis=1).tolist() == [0] * 4 + [1] * 12
        aligned = self.spread(features, targets, neighbours=2, alpha=0.5, align="always")
        assert aligned.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.01)
        assert aligned[4].argmax() == 0

    @pytest.mark.parametrize(("given", "is_aligned"), [(0.38, True), (0.42, False)])
    def test_alignment_where_it_changes_few_images(self, given, is_aligned):
        """Four of sixteen images, a quarter, are of the first class; the limit is 15 % of them."""
        angles = np.radians(np.arange(0, 96, 6))
        features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        targets = np.full(16, -1)
        targets[[2, 5]] = 0, 1
        how = LabelSpreading(neighbours=2, alpha=0.5)
        spread = spread_labels(features, targets, np.array([given, 1 - given]), how)
        assert spread.is_aligned == is_aligned
        assert spread.shares == pytest.approx([0.25, 0.75])
        mean = [given, 1 - given] if is_aligned else [0.25, 0.75]
        assert spread.labels.mean(axis=0) == pytest.approx(mean, abs=0.02)

    def test_is_nearest_in_direction(self):
        """About the mean, length does not count: twice as far in the same direction is near."""
        features = [[1, 0], [2, 0.1], [-1, 0], [-2, -0.1]]
        labels = self.spread(features, [0, -1, 1, -1], neighbours=1)
        assert labels.argmax(axis=1).tolist() == [0, 0, 1, 1]

    def test_classes_are_as_frequent_as_the_prior(self):
        """Whatever the graph says of 60 random images, a third of the labels is class 0."""
        rng = np.random.default_rng(0)
        features = rng.normal(size=(60, 2))
        targets = np.full(60, -1)
        targets[:2] = 0, 1
        prior = (1 / 3, 2 / 3)
        labels = self.spread(features, targets, prior, neighbours=5, align="always")
        assert labels.mean(axis=0) == pytest.approx([1 / 3, 2 / 3], abs=0.01)

    def test_classes_are_as_frequent_as_the_prior_among_what_is_reached(self):
        """Of 3,000 images a group of 60, in which one of ten classes is at home."""
        rng = np.random.default_rng(0)
        reached = np.append(rng.normal(size=(60, 2)), np.zeros((60, 2)), axis=1)
        others = np.append(np.zeros((2940, 2)), rng.normal(size=(2940, 2)), axis=1)
        targets = np.full(3000, -1)
        targets[:10] = range(10)
        prior = [0.55, *[0.05] * 9]
        features = np.append(reached, others, axis=0)
        labels = self.spread(features, targets, prior, neighbours=5, align="always")
        assert not labels[60:].any()
        assert labels[:60].mean(axis=0) == pytest.approx(prior, abs=0.02)

    def test_what_no_label_reaches_has_none(self):
        """And none is kept of it, whatever the share."""
        angles = np.radians([0, 1, 2, 120, 121, 122, 240, 241, 242])
        features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        labels = self.spread(features, [0, -1, -1, 1, -1, -1, -1, -1, -1], neighbours=2)
        assert labels[6:].tolist() == [[0, 0]] * 3
        assert keep_confident(labels, 1.0).tolist() == [0] * 3 + [1] * 3 + [-1] * 3

    def test_fewer_images_than_neighbours(self):
        labels = self.spread([[1, 0], [0, 1], [1, 0.2]], [0, 1, -1], neighbours=10)
        assert labels[2].argmax() == 0


class TestNeighbours:
    def test_by_hand(self):
        """Directions of 0, 10, 30 and 60 degrees: neighbours by the angle between."""
        angles = np.radians([0, 10, 30, 60])
        rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        found, cosines = find_neighbours(rows, 2)
        assert found.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
        degrees = np.degrees(np.arccos(cosines))
        np.testing.assert_allclose(degrees, [[10, 30], [10, 20], [20, 30], [30, 50]], atol=0.1)

    @pytest.mark.parametrize("count", [5, 500, 517])
    def test_are_those_of_a_search_through_all(self, count):
        rows = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found, cosines = find_neighbours(rows, 4)
        all_cosines = rows @ rows.T
        np.fill_diagonal(all_cosines, -2)
        np.testing.assert_array_equal(found, np.argsort(-all_cosines, axis=1)[:, :4])
        np.testing.assert_allclose(cosines, -np.sort(-all_cosines, axis=1)[:, :4], atol=1e-6)

    def test_of_equal_rows_none_is_its_own_neighbour(self):
        found, cosines = find_neighbours(np.tile(np.float32([[0.6, 0.8]]), (400, 1)), 3)
        assert (found != np.arange(400)[:, np.newaxis]).all()
        assert cosines == pytest.approx(1)


def test_the_most_confident_of_each_class_keep_their_labels():
    """Half of the two images of class 0, and half, rounded up, of the three of class 1."""
    labels = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9], [0.2, 0.8]], np.float32)
    assert keep_confident(labels, 0.5).tolist() == [0, -1, -1, 1, 1]


def copy(model):
    """Another model with the same weights."""
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    return copied


class TestTeaching:
    def teach(self, labels=(-1, -1), spreading=None, **rule):
        """A teacher of two classes that answers by one pixel, with weights of our choice."""
        pixel = keras.Input((1, 1, 1))
        dense = keras.layers.Dense(2, activation="softmax", use_bias=False)
        teacher = keras.Model(pixel, dense(keras.layers.Flatten()(pixel)))
        teacher.set_weights([np.array([[0.0, 2.0]], np.float32)])  # 0.12 and 0.88 at pixel 1
        rule = PseudoLabels(**rule) if rule else None
        how = Unlabelled(ema=0.9, pseudo_labels=rule, label_spreading=spreading or {})
        metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        prior = np.array([0.5, 0.5], np.float32)
        loss = "sparse_categorical_crossentropy"
        labels = np.array(labels)
        return teacher, Teaching(
            teacher, copy(teacher), loss, metric, how, prior, labels, lambda _: np.array([1, 0])
        )

    def loss(self, objective):
        """Of one labelled image of class 1 and two unlabelled ones, all of pixel 1."""
        ones = np.ones((2, 1, 1, 1), np.float32)
        batch = (ones[:1], np.array([1])), (ones, ones, np.arange(2))
        return float(objective(batch, training=True))

    def test_only_labelled_images_count_without_a_teacher(self):
        """-log(0.8808) = 0.1269 for class 1, -log(0.1192) = 2.1269 for class 0."""
        _, objective = self.teach([0, -1])
        found = self.loss(objective)
        assert found == pytest.approx(0.126928 + 2.126928 / 2, rel=1e-4)

    def test_only_a_confident_teacher_is_believed(self):
        """It answers 0.8808: its own entropy 0.3653 counts below that threshold, nothing above."""
        for threshold, expected in [(0.8, 0.126928 + 0.365335), (0.9, 0.126928)]:
            _, objective = self.teach(threshold=threshold, align=False)
            found = self.loss(objective)
            assert found == pytest.approx(expected, rel=1e-4)

    def test_the_teacher_labels_what_has_no_label(self):
        _, objective = self.teach([0, -1], threshold=0.8, align=False)
        found = self.loss(objective)
        assert found == pytest.approx(0.126928 + (2.126928 + 0.365335) / 2, rel=1e-4)

    def test_answers_are_aligned_with_the_prior(self):
        """The running mean becomes 0.99 · 0.5 + 0.01 · (0.1192, 0.8808): too little of class 0."""
        _, objective = self.teach(threshold=0.88, align=True)
        answers = np.array([0.119203, 0.880797]) / (0.495 + 0.01 * np.array([0.119203, 0.880797]))
        answers /= answers.sum()
        assert answers[1] < 0.88, "so the teacher is not believed"
        assert self.loss(objective) == pytest.approx(0.126928, rel=1e-4)

    def test_answers_are_sharpened(self):
        """(0.1192, 0.8808)² / sum = (0.0180, 0.9820), whether it counts follows from 0.8808."""
        sharp = 0.982014 * 0.126928 + 0.017986 * 2.126928
        for threshold, expected in [(0.8, 0.126928 + sharp), (0.9, 0.126928)]:
            _, objective = self.teach(threshold=threshold, align=False, temperature=0.5)
            assert self.loss(objective) == pytest.approx(expected, rel=1e-4)

    def test_the_teacher_is_a_moving_average(self):
        """Of the first step 10/11, of later ones at most 1 - ema."""
        teacher, objective = self.teach(threshold=0.5)
        objective.model.set_weights([np.array([[11.0, 13.0]], np.float32)])
        objective.finish_step()
        assert teacher.get_weights()[0][0] == pytest.approx([10, 12])
        for _ in range(200):
            objective.finish_step()
        objective.model.set_weights([np.array([[1.0, 3.0]], np.float32)])
        objective.finish_step()
        assert teacher.get_weights()[0][0] == pytest.approx([10, 12], abs=0.01)

    def test_labels_are_spread_again(self):
        _, objective = self.teach(spreading=LabelSpreading(refresh=2))
        labels = objective.state[-3]
        for epoch, expected in enumerate([[-1, -1], [-1, -1], [1, 0]]):
            objective.begin_epoch(epoch)
            assert np.array(labels).tolist() == expected

    def test_batch_norm_of_the_teacher_follows_the_weak_views(self):
        """0.9 of the old mean, 0; and 0.1 of the weak views' 1, not of the strong ones' 3."""
        pixel = keras.Input((1, 1, 1))
        norm = keras.layers.BatchNormalization(momentum=0.9)
        dense = keras.layers.Dense(2, activation="softmax")
        teacher = keras.Model(pixel, dense(keras.layers.Flatten()(norm(pixel))))
        how, prior = Unlabelled(label_spreading={}), np.array([0.5, 0.5], np.float32)
        metric = keras.metrics.SparseCategoricalAccuracy()
        loss = "sparse_categorical_crossentropy"
        objective = Teaching(
            teacher, copy(teacher), loss, metric, how, prior, np.array([0, 1]), lambda epoch: []
        )
        ones = np.ones((2, 1, 1, 1), np.float32)
        objective(((ones, np.array([0, 1])), (ones, 3 * ones, np.arange(2))), training=True)
        objective.finish_step()
        assert np.array(norm.moving_mean) == pytest.approx(0.1)

    def test_the_teacher_is_validated(self):
        _, objective = self.teach(threshold=0.5)
        objective.model.set_weights([np.array([[9.0, 0.0]], np.float32)])
        batch = np.ones((1, 1, 1, 1), np.float32), np.array([1])
        assert float(objective(batch, training=False)) == pytest.approx(0.126928, rel=1e-4)


def plan_of(images, targets, others, classes, chosen=None, warn=print, **changes):
    """A plan for the first of the images, which have these targets, and others without labels."""
    config = validate_config(HEAD | changes, "HEAD", "classifier")
    model = build.get_classifier(config, (8, 8, 1), classes)
    targets = np.array(targets, np.int32)
    chosen = np.arange(len(targets)) if chosen is None else np.array(chosen)
    labelled = images[: len(targets)], targets, chosen
    return Plan(model, config, labelled, others, Scaling(0, 255, "uint8"), warn)


@pytest.mark.parametrize(("rare", "is_alike"), [(3, False), (9, True)])
def test_other_shares_of_classes_are_told_and_taken_over(rare, is_alike):
    """Of 20 images some are bright above, the others below; one more of each has a label."""
    images = np.zeros((22, 8, 8, 1), np.uint8)
    is_rare = np.array([True, False, *[True] * rare, *[False] * (20 - rare)])
    images[is_rare, :4] = images[~is_rare, 4:] = 200
    images[:, 3:5] += np.arange(22, dtype=np.uint8)[:, None, None, None]
    warned = []
    how = {"label_spreading": {"on": "pixels", "neighbours": 3, "share": 1}}
    plan = plan_of(images, [0, 1], images[2:], 2, warn=warned.append, unlabelled=how)
    assert plan.labels.tolist() == [0] * rare + [1] * (20 - rare)
    shares = [0.5, 0.5] if is_alike else [4 / 22, 18 / 22]
    assert plan.prior == pytest.approx(shares) and len(warned) == (not is_alike)


class TestBatches:
    @pytest.fixture
    def batches(self, images):
        """Of six images, of which the first, third and fifth are for training."""
        how = {"batch_size": 8, "pseudo_labels": {}, "weak": {}}
        chosen = [0, 2, 4]
        plan = plan_of(images[20:], range(6), images[:20], 6, chosen, unlabelled=how)
        return plan.get_batches()

    def test_an_epoch_is_a_pass_over_the_unlabelled_images(self, batches, images):
        """20 images make 3 steps of 8, each with 4 of the 3 labelled images."""
        steps = list(batches.iterate())
        assert batches.steps == 3
        assert [len(weak) for _, (weak, _, _) in steps] == [8, 8, 8]
        seen = np.concatenate([weak for _, (weak, _, _) in steps])
        order = [np.abs(images[:20] / 255 - image).sum((1, 2, 3)).argmin() for image in seen]
        assert set(order) == set(range(20))
        assert np.concatenate([places for _, (_, _, places) in steps]).tolist() == order
        targets = np.concatenate([targets for (_, targets), _ in steps])
        assert np.bincount(targets).tolist() == [4, 0, 4, 0, 4]

    def test_every_unlabelled_image_comes_equally_often(self, batches):
        """The 24 places of 5 epochs hold 20 images 6 times."""
        steps = [step for epoch in range(5) for step in batches.iterate(epoch)]
        places = np.concatenate([places for _, (_, _, places) in steps])
        assert np.bincount(places).tolist() == [6] * 20

    def test_every_labelled_image_comes_equally_often(self, images):
        """One step of 4 images an epoch: a pass over 12 takes 3 epochs, one over 6 takes 1.5."""
        for count, times in ((12, 1), (6, 2)):
            plan = plan_of(images[20:], range(count), images[:8], count, full_train_epochs=1)
            batches = plan.get_batches()
            steps = [step for epoch in range(3) for step in batches.iterate(epoch)]
            seen = np.concatenate([targets for (_, targets), _ in steps])
            assert np.bincount(seen).tolist() == [times] * count

    @pytest.mark.parametrize(
        ("epochs_of_file", "epochs", "first", "last", "expected"),
        [
            (5, 5, 0.2, 0.8, {2: 0.5, 4: 0.8}),
            # Fresh weights train in one phase of all epochs, here four more.
            (8, 12, 0.9, 0.2, {6: 0.5, 8: 0.35, 10: 0.2}),
        ],
    )
    def test_the_share_of_spread_labels_changes_evenly(
        self, images, epochs_of_file, epochs, first, last, expected
    ):
        """The labels are spread again before every second epoch; 10 images of each class."""
        spreading = {"neighbours": 3, "share": first, "refresh": 2, "last_share": last}
        changes = {"full_train_epochs": epochs_of_file}
        changes["unlabelled"] = {"label_spreading": spreading}
        plan = plan_of(images, range(4), images[4:44], 4, **changes)
        assert np.mean(plan.labels != -1) == pytest.approx(first, abs=0.051)
        for epoch, share in expected.items():
            found = np.mean(plan.spread_again(epoch, epochs=epochs) != -1)
            assert found == pytest.approx(share, abs=0.051)

    def test_strong_views_differ(self, batches):
        _, (weak, strong, _) = next(batches.iterate())
        assert weak.shape == strong.shape
        assert np.abs(weak - strong).max() > 0.1

    def test_any_step_can_be_the_first(self, batches):
        for epoch in range(2):
            *_, last = batches.iterate(epoch)
            (again,) = batches.iterate(epoch, first_step=2)
            for one, other in zip((*last[0], *last[1]), (*again[0], *again[1]), strict=True):
                np.testing.assert_array_equal(one, other)


class TestTraining:
    def test_phases(self, images):
        """The head first, on labelled images alone; then both kinds together."""
        _, history = fit(images)
        assert [row["phase"] for row in history.epochs] == [DENSE_ONLY, FULL, FULL]

    def test_few_images_are_seen_in_more_epochs(self, images):
        """24 unlabelled images are 3 steps of 8; without them, 44 labelled ones 11 of 4."""
        _, history = fit(images, min_steps=11)
        assert [row["phase"] for row in history.epochs] == [DENSE_ONLY, *[FULL] * 4]
        config = {**HEAD, "unlabelled": None, "validation_split": 0, "min_steps": 34}
        model = build.get_classifier(config, images.shape[1:], 4)
        history = train.train_classifier(model, config, images, np.arange(44) % 4)
        assert [row["phase"] for row in history.epochs] == [DENSE_ONLY, *[FULL] * 4]

    def test_finds_the_labels_of_the_others(self, images):
        """One label per class, and no validation; the last epoch is kept."""
        how = {"batch_size": 8, "strong": {"noise": 0.1}}
        how["label_spreading"] = {"on": "pixels", "neighbours": 3}
        phases = {"dense_only_train_epochs": 0, "full_train_epochs": 12, "best_epoch_by": "last"}
        model, history = fit(images, 4, pretrained=False, unlabelled=how, **phases)
        assert history.best_epoch == len(history.epochs)
        predicted = model.predict(images / 255, verbose=0).argmax(axis=1)
        assert (predicted == np.arange(44) % 4).mean() > 0.95

    def test_by_spread_labels_alone(self, images):
        """24 unlabelled images do not divide into steps of 7."""
        how = {"batch_size": 7, "label_spreading": {"neighbours": 3, "share": 1}}
        _, history = fit(images, unlabelled=how)
        assert len(history.epochs) == 3

    def test_saved_models_are_plain(self, images, tmp_path):
        model, _ = fit(images)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert [layer.name for layer in loaded.layers[1:]] == ["encoder", "fully_connected"]

    def test_a_source_of_pseudo_labels_is_required(self):
        with pytest.raises(ConfigurationError, match="label_spreading"):
            validate_config({**HEAD, "unlabelled": {}}, "c.json", "classifier")

    def test_a_share_that_changes_requires_refresh(self):
        wrong = {"unlabelled": {"label_spreading": {"last_share": 0.9}}}
        with pytest.raises(ConfigurationError, match="refresh"):
            validate_config({**HEAD, **wrong}, "c.json", "classifier")
