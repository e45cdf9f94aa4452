"""Improved deep embedded clustering, as a second phase of an autoencoder, for checks.py."""

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans

from cae.config.fields import Augmentation
from cae.training.augment import augment

CLUSTERS = 10
EPOCHS, BATCH_SIZE, LEARNING_RATE = 8, 128, 0.0005
CLUSTERING_WEIGHT = 0.1  # beside the reconstruction, as in the paper
CHANGES = Augmentation(rotation=20, shear=15, shift=0.1, zoom=0.15)


def cluster(autoencoder: keras.Model, images: np.ndarray, encodings: np.ndarray, seed: int) -> None:
    """Trains the autoencoder on, so that changed images lie where the unchanged ones cluster.

    Args:
        autoencoder: Trained; is changed.
        images: float32 (num_images, height, width, channels) in [0, 1].
        encodings: float32 (num_images, num_values), of these images.
        seed: Of the first centres and of the order of the images.
    """
    encoder, decoder = autoencoder.get_layer("encoder"), autoencoder.get_layer("decoder")
    unit = float(encodings.std())
    found = KMeans(CLUSTERS, n_init=10, random_state=seed).fit(encodings / unit)
    centres = keras.Variable(found.cluster_centers_.astype(np.float32))
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    weights = [*autoencoder.trainable_variables, centres]
    optimizer.build(weights)
    order = np.random.default_rng(seed)

    def assign(codes: tf.Tensor) -> tf.Tensor:
        """The share of each cluster in an image: Student's t distribution of the distances."""
        distances = tf.reduce_sum((codes[:, tf.newaxis] / unit - centres.value) ** 2, axis=2)
        closeness = 1 / (1 + distances)
        return closeness / tf.reduce_sum(closeness, axis=1, keepdims=True)

    @tf.function
    def step(batch: tf.Tensor, target: tf.Tensor, key: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            codes = encoder(augment(batch, CHANGES, key), training=False)
            drawn = decoder(codes, training=False)
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(batch, drawn))
            divergence = keras.losses.kl_divergence(target, assign(codes))
            loss += CLUSTERING_WEIGHT * tf.reduce_mean(divergence)
        optimizer.apply(tape.gradient(loss, weights), weights)

    for epoch in range(EPOCHS):
        shares = np.concatenate(
            [assign(encoder(part, training=False)) for part in np.array_split(images, 20)]
        )
        target = shares**2 / shares.sum(axis=0)
        target /= target.sum(axis=1, keepdims=True)
        parts = order.permutation(len(images))
        for number, first in enumerate(range(0, len(images) - BATCH_SIZE + 1, BATCH_SIZE)):
            chosen = parts[first : first + BATCH_SIZE]
            key = tf.constant([seed, epoch * len(images) + number], tf.int64)
            step(tf.constant(images[chosen]), tf.constant(target[chosen]), key)


def get_cluster_error(encodings: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """The share of images outside the cluster of their class, by k-means, named at best."""
    clusters = KMeans(CLUSTERS, n_init=10, random_state=seed).fit_predict(encodings)
    counts = np.zeros((CLUSTERS, CLUSTERS), int)
    np.add.at(counts, (clusters, labels), 1)
    return 1 - counts[linear_sum_assignment(-counts)].sum() / len(labels)
