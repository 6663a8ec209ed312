"""DICOM series, parsed in a sandboxed child process."""
