"""The classifier: training arms of real and synthetic images, predictions, fairness tables."""
