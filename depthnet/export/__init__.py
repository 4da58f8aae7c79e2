"""A run's weights for others: shipped files, model cards, averages."""
