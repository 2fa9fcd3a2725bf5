"""How well clicks are ranked and how true the probabilities are: numpy functions over arrays of rows, seconds for millions."""
