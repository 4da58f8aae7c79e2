"""From predictions to metrics: protocols, intervals, comparisons and reports."""
