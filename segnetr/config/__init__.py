"""Settings: the schema and the configuration loader. Does not import torch."""
