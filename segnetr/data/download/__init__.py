"""Download, verify, extract and install official archives."""
