"""Hybrid backbones: published networks that depend only on torch."""

from hybrid_backbones import kernels
from hybrid_backbones.attention_capture import AttentionCall, capture_attention
from hybrid_backbones.backbone import Backbone, EncoderOutput, FeatureExtractor, FeatureInfo
from hybrid_backbones.create import create_model, rename_old_fields
from hybrid_backbones.fusion import fuse
from hybrid_backbones.layer_groups import list_layers
from hybrid_backbones.model_spec import ModelSpec, Normalization
from hybrid_backbones.registry import get_spec, list_models
from hybrid_backbones.weights import CheckpointError, LoadReport, load_published, read_checkpoint

__all__ = [
    "AttentionCall",
    "Backbone",
    "CheckpointError",
    "EncoderOutput",
    "FeatureExtractor",
    "FeatureInfo",
    "LoadReport",
    "ModelSpec",
    "Normalization",
    "capture_attention",
    "create_model",
    "fuse",
    "get_spec",
    "kernels",
    "list_layers",
    "list_models",
    "load_published",
    "read_checkpoint",
    "rename_old_fields",
]
