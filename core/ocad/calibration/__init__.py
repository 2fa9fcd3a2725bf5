"""From a network's log-odds to probabilities that can be taken at their word: `choose_calibrator` and what it chooses from."""
