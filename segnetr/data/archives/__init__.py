"""Official archives: where they come from, how they are fetched, checked, unpacked and placed."""
