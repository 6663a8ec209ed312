"""Hybrid backbones: published networks that depend on torch alone."""

from hybrid_backbones.attention_capture import AttentionCall, observe_attention
from hybrid_backbones.backbone import Backbone, Encoded, FeatureExtractor, FeatureInfo
from hybrid_backbones.create import create_model
from hybrid_backbones.kernels.folding import fuse
from hybrid_backbones.layer_groups import list_layers
from hybrid_backbones.model_spec import ModelEntry, Normalisation
from hybrid_backbones.registry import get_entry, list_models
from hybrid_backbones.weights import CheckpointError, LoadReport, load_published, read_checkpoint

__all__ = [
    "AttentionCall",
    "Backbone",
    "CheckpointError",
    "Encoded",
    "FeatureExtractor",
    "FeatureInfo",
    "LoadReport",
    "ModelEntry",
    "Normalisation",
    "create_model",
    "fuse",
    "get_entry",
    "list_layers",
    "list_models",
    "load_published",
    "observe_attention",
    "read_checkpoint",
]
