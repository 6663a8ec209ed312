"""The synthetic dermoscopy data set."""
