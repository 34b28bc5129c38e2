"""Training runs that compare policies: data, comparison, report and pictures."""
