"""Linear multi-task models as scikit-learn estimators."""
