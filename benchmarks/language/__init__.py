"""Language models beside their peers: the same weights, in the same precision, in turns."""
