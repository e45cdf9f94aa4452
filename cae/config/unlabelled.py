"""How a classifier learns from images without labels: the key `unlabelled`."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from cae.config.fields import Augmentation, BatchSize, Epochs, Keys, object_or_null
from cae.config.values import choice_type, integer_type, number_type, refusal, worded

GRAPHS = ("encodings", "pixels")


class LabelSpreading(Keys):
    """Names for unlabelled images before training, along a graph of near neighbours.

    Zhou et al. 2004, "Learning with local and global consistency".
    """

    on: choice_type(GRAPHS) = "encodings"
    """What makes images neighbours: the `encodings` of the pretrained encoder, or their
    `pixels`."""

    neighbours: integer_type(1, 100) = 10
    """Nearest neighbours of each image in the graph, by the cosine."""

    alpha: number_type("between 0 and 1, both excluded", gt=0, lt=1) = 0.99
    """How far names travel: the share of its neighbours in the name of an image."""

    share: number_type("above 0, at most 1", gt=0, le=1) = 0.8
    """Share of the images of each class, those with the surest names, that are trained on by these
    names; the others are left to `pseudo_labels`."""

    refresh: Epochs | None = None
    """Spread the labels again after so many epochs, each time by the encodings of the classifier so
    far beside those before training; null: never."""


class PseudoLabels(Keys):
    """Names for unlabelled images in every step, by a teacher where it is confident.

    Sohn et al. 2020, "FixMatch"; Berthelot et al. 2020, "ReMixMatch".
    """

    threshold: number_type("from 0 up to but not including 1", ge=0, lt=1) = 0.9
    """Probability above which the teacher is believed."""

    align: Annotated[bool, worded("must be true or false")] = True
    """Rescale the teacher's answers so that classes are as frequent as among the labels."""


class Unlabelled(Keys):
    """How a classifier learns from images without labels, in steps that hold both kinds."""

    batch_size: BatchSize = 112
    """Unlabelled images per step, beside `batch_size` labelled ones; an epoch is a pass over the
    unlabelled images."""

    weight: number_type("from 0 to 100", ge=0, le=100) = 1.0
    """Weight of the unlabelled images' loss."""

    ema: number_type("from 0 up to but not including 1", ge=0, lt=1) = 0.99
    """The teacher, which is the model that is kept, is a moving average of the trained weights:
    its share in every step (Tarvainen & Valpola 2017, "Mean teachers are better role models")."""

    weak: Augmentation = Augmentation(rotation=5, shift=0.07, zoom=0.05)
    """Changes of the images that the teacher sees."""

    strong: Augmentation = Augmentation(
        rotation=20, shear=15, shift=0.12, zoom=0.2, noise=0.1, cutout=0.35
    )
    """Changes of the images that are trained on."""

    label_spreading: object_or_null(LabelSpreading, {"on": "encodings"}) = None
    """Names by label spreading: an object with `on`, `neighbours`, `alpha`, `share` and
    `refresh`; null: none."""

    pseudo_labels: object_or_null(PseudoLabels, {"threshold": 0.9}) = Field(
        None, validate_default=True
    )
    """Names by the teacher: an object with `threshold` and `align`; null: none."""

    @field_validator("pseudo_labels")
    @classmethod
    def _some_source_names(
        cls, rule: PseudoLabels | None, info: ValidationInfo
    ) -> PseudoLabels | None:
        if rule is None and info.data.get("label_spreading", True) is None:
            raise refusal(
                "must not be null when label_spreading is null as well",
                'Write for example "pseudo_labels": {"threshold": 0.9}.',
            )
        return rule


UnlabelledOrNull = object_or_null(Unlabelled, {"label_spreading": {}, "pseudo_labels": {}})
