"""The command line: parse, load the configuration, call one workflow, print."""
