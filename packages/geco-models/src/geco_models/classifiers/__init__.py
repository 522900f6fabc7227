"""Small classifiers, their training, and their features for constraints (FRE, CLA)."""

from geco_models.classifiers.features import FeatureExtractor
from geco_models.classifiers.models import AbstractClassifier, SmallCNN, SmallResNet
from geco_models.classifiers.training import accuracy, train_classifier

__all__ = [
    "AbstractClassifier",
    "FeatureExtractor",
    "SmallCNN",
    "SmallResNet",
    "accuracy",
    "train_classifier",
]
