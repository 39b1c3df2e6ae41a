"""The shared sentence encoder of Strata and the small classifiers that stand on it."""

from encoders.classifier import ClassifierFileError, Prediction, TextClassifier
from encoders.encoder import Encoder, EncoderIdentity, EncoderUnavailableError

__all__ = [
    "ClassifierFileError",
    "Encoder",
    "EncoderIdentity",
    "EncoderUnavailableError",
    "Prediction",
    "TextClassifier",
]
