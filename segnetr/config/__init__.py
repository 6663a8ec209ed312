"""Settings: the schema, and how a configuration is read. Torch is not imported here."""
