"""Small models trained to score a whole data set."""
