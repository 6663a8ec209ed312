"""Write masks and probability maps in the format of their image."""
