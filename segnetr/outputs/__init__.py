"""Files written for people and other programs."""
