"""Hybrid backbones: published networks that depend on torch alone."""
