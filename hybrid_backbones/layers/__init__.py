"""Parts shared by several architectures."""
